import type { DiffView } from '../../api/agent-operations.js'
import type { AgentClient } from '../agent-client.js'
import type { Command } from '../command.js'
import { UsageError } from '../failure.js'
import { parseTarget } from '../target.js'
import { bytes } from '../text.js'

export const diffCommand: Command = {
  name: 'volume diff',
  arguments: ['FROM', 'TO'],
  options: [],
  usage: 'VOLUME@SNAPSHOT VOLUME[@SNAPSHOT]',
  summary: 'List what changed between two snapshots, or since one, from the metadata alone.',
  example: 'tidemark volume diff db@monday db@tuesday',
  run: async ({ agent, terminal }, typed) => {
    const from = parseTarget(typed.argument('FROM'))
    const to = parseTarget(typed.argument('TO'))
    if (from.snapshot === undefined) throw new UsageError(`${from.volume} is no VOLUME@SNAPSHOT`)
    if (from.volume !== to.volume) throw new UsageError('give two snapshots of one volume')
    const query = { from: from.snapshot, ...(to.snapshot === undefined ? {} : { to: to.snapshot }) }
    const found = await allPages(agent, from.volume, query)
    terminal.result(found, [
      ...found.extents.map(({ offset, lengthBytes }) => `${offset} ${lengthBytes}`),
      `${bytes(found.changedBytes)} in ${found.extents.length} extents (offset and length in bytes)`,
    ])
  },
}

async function allPages(
  agent: AgentClient,
  volume: string,
  query: Readonly<Record<string, string>>,
): Promise<Omit<DiffView, 'next'>> {
  const extents: DiffView['extents'][number][] = []
  let after = 0
  for (;;) {
    const page = await agent.call<DiffView>({
      method: 'GET',
      path: ['volumes', volume, 'diff'],
      query: { ...query, after: String(after) },
    })
    const { from, to, changedBytes, next } = page
    extents.push(...page.extents)
    if (next === null) return { volume, from, to, changedBytes, extents }
    after = next
  }
}

import path from 'node:path'
import type { CheckProgressView, PoolCheckView, PoolView } from '../../api/agent-operations.js'
import type { Command, Context } from '../command.js'
import { CommandFailure, UsageError } from '../failure.js'
import { typedDevices } from '../pool-devices.js'
import { bytes, facts, percent, table } from '../text.js'

const figures = (pool: PoolView) =>
  `${bytes(pool.allocatedBytes)} of ${bytes(pool.sizeBytes)} allocated (${percent(pool.allocatedBytes, pool.sizeBytes)})`

const devices = [
  { flags: '--device PATH', summary: 'a block device', kind: 'any' },
  { flags: '--file PATH', summary: 'a file to make', kind: 'any' },
  { flags: '--size SIZE', summary: 'of the file before it, or of every file', kind: 'any' },
] as const

export const poolCommands: Command[] = [
  {
    name: 'pool create',
    arguments: ['NAME'],
    options: [
      ...devices,
      { flags: '--unit SIZE', summary: 'what one volume gets at a time (default: 8MiB)' },
      { flags: '--block SIZE', summary: 'what is mapped and copied on write, 4KiB to 1MiB (default: 64KiB)' },
      { flags: '--force', summary: 'overwrite what lies there' },
    ],
    usage: 'NAME --device PATH | --file PATH --size SIZE [--device PATH ...] [--unit SIZE] [--block SIZE] [--force]',
    summary: 'Make a pool of one or more files and block devices.',
    example: 'tidemark pool create fast --device /dev/nvme0n1 --device /dev/nvme1n1',
    run: async ({ agent, terminal }, typed) => {
      const unit = typed.option('unit')
      const block = typed.option('block')
      const pool = await agent.call<PoolView>({
        method: 'POST',
        path: ['pools'],
        body: {
          name: typed.argument('NAME'),
          devices: typedDevices(typed),
          ...(unit === undefined ? {} : { unit }),
          ...(block === undefined ? {} : { block }),
          ...(typed.flag('force') ? { force: true } : {}),
        },
      })
      terminal.result(pool, [
        `Pool ${pool.name} has ${bytes(pool.sizeBytes)} for volumes. Next: tidemark volume create NAME --pool ${pool.name} --size SIZE`,
      ])
    },
  },
  {
    name: 'pool list',
    arguments: [],
    options: [],
    usage: '',
    summary: 'List the pools.',
    example: 'tidemark pool list',
    run: async ({ agent, terminal }) => {
      const pools = await agent.get<PoolView[]>('pools')
      const rows = pools.map((pool) => [
        pool.name,
        bytes(pool.sizeBytes),
        bytes(pool.allocatedBytes),
        percent(pool.allocatedBytes, pool.sizeBytes),
        bytes(pool.virtualBytes),
        String(pool.volumes.length),
        pool.state,
        pool.reason,
      ])
      terminal.result(
        pools,
        rows.length === 0
          ? ['There are no pools. Make one: tidemark pool create NAME --device PATH, or --file PATH --size SIZE']
          : table([['NAME', 'SIZE', 'ALLOCATED', 'USED', 'VIRTUAL', 'VOLUMES', 'STATE', 'REASON'], ...rows]),
      )
    },
  },
  {
    name: 'pool show',
    arguments: ['NAME'],
    options: [],
    usage: 'NAME',
    summary: 'Show one pool: its devices, figures, marks and volumes.',
    example: 'tidemark pool show fast',
    run: async ({ agent, terminal }, typed) => {
      const pool = await agent.get<PoolView>('pools', typed.argument('NAME'))
      terminal.result(pool, poolFacts(pool))
    },
  },
  {
    name: 'pool extend',
    arguments: ['NAME'],
    options: [...devices, { flags: '--force', summary: 'overwrite what lies there' }],
    usage: 'NAME --device PATH | --file PATH --size SIZE [--force]',
    summary: 'Add a file or device; writes that wait for space go on.',
    example: 'tidemark pool extend fast --device /dev/nvme2n1',
    run: async ({ agent, terminal }, typed) => {
      const [device, ...more] = typedDevices(typed)
      if (more.length > 0) throw new UsageError('give one device or file at a time')
      const pool = await agent.call<PoolView>({
        method: 'POST',
        path: ['pools', typed.argument('NAME'), 'extend'],
        body: { ...device, ...(typed.flag('force') ? { force: true } : {}) },
      })
      terminal.result(pool, [`Pool ${pool.name} has ${figures(pool)} on ${pool.devices.length} devices`])
    },
  },
  {
    name: 'pool export',
    arguments: ['NAME'],
    options: [],
    usage: 'NAME',
    summary: 'Close the pool and let go of it, so that any agent can import it.',
    example: 'tidemark pool export fast',
    run: async ({ agent, terminal }, typed) => {
      const exported = await agent.call<{ name: string; paths: string[] }>({
        method: 'POST',
        path: ['pools', typed.argument('NAME'), 'export'],
      })
      terminal.result(exported, [
        `Pool ${exported.name} is closed; nothing of it is open here. Where it goes: tidemark pool import ${exported.paths.join(' ')}`,
      ])
    },
  },
  {
    name: 'pool import',
    arguments: ['PATH...'],
    options: [],
    usage: 'PATH...',
    summary: 'Take over a pool by all its devices, also after a crash of the agent that had it.',
    example: 'tidemark pool import /dev/sdc /dev/sdd',
    run: async ({ agent, terminal }, typed) => {
      const paths = typed.rest.map((file) => path.resolve(file))
      const pool = await agent.call<PoolView>({ method: 'POST', path: ['pool-imports'], body: { paths } })
      terminal.result(pool, [
        `Pool ${pool.name} is here: ${figures(pool)}, volumes ${pool.volumes.join(', ') || 'none'}. They are detached.`,
        pool.reason,
      ])
    },
  },
  {
    name: 'pool remove',
    arguments: ['NAME'],
    options: [{ flags: '--yes', summary: 'although it has volumes, whose data are lost' }],
    usage: 'NAME [--yes]',
    summary: 'Destroy the pool. Its files are removed, its devices can be used for anything.',
    example: 'tidemark pool remove fast',
    run: async ({ agent, terminal }, typed) => {
      const name = typed.argument('NAME')
      const query = typed.flag('yes') ? { yes: 'true' } : {}
      await agent.call({ method: 'DELETE', path: ['pools', name], query })
      terminal.result({ name, removed: true }, [`Pool ${name} is destroyed.`])
    },
  },
  {
    name: 'pool check',
    arguments: ['NAME...'],
    options: [{ flags: '--repair', summary: 'save what can be saved, and free what belongs to nothing' }],
    usage: 'NAME | PATH... [--repair]',
    summary: 'Check all metadata of a pool nothing uses: by its name, or by all its devices, without an agent too.',
    example: 'tidemark pool check /dev/sdc /dev/sdd --repair',
    run: checkPool,
  },
]

/** What has a slash is a path, checked by this very process; a word is the name of the agent's pool. */
async function checkPool(context: Context, typed: Parameters<Command['run']>[1]): Promise<void> {
  const [first = '', ...more] = typed.rest
  const repair = typed.flag('repair')
  const byName = more.length === 0 && !first.includes('/')
  if (!byName && typed.rest.some((word) => !word.includes('/'))) {
    throw new UsageError('give one NAME, or paths; a file in this folder is ./FILE')
  }
  let progress: CheckProgressView | null = null
  const ticking = showProgress(context, byName ? first : path.basename(first), async () => {
    if (byName) progress = (await context.agent.get<PoolView>('pools', first)).check
    return progress
  })
  let found: PoolCheckView
  try {
    found = byName
      ? await context.agent.call<PoolCheckView>({
          method: 'POST',
          path: ['pools', first, 'check'],
          query: repair ? { repair: 'true' } : {},
          patient: true,
        })
      : await context.local.checkPool({ paths: typed.rest.map((file) => path.resolve(file)), repair }, (told) => {
          progress = told
        })
  } finally {
    ticking.stop()
  }
  context.terminal.result(found, [
    ...found.findings.map(findingLine),
    `Pool ${found.pool}: ${found.volumes} volumes, ${found.snapshots} snapshots, ${bytes(found.mappedBytes)} of data. ${verdict(found)}`,
  ])
  if (found.clean) return
  throw new CommandFailure({
    code: 'POOL_DAMAGED',
    op: 'pool check',
    object: found.pool,
    message: `pool check ${found.pool}: ${found.findings.length} findings`,
    hint: repair
      ? 'What is named above could not be saved. Restore those volumes from the other site or a backup.'
      : 'Save what can be saved: the same command with --repair.',
  })
}

function findingLine({ severity, object, text, volumes, repaired }: PoolCheckView['findings'][number]): string {
  const cost = volumes.length > 0 ? ` (what ${volumes.join(', ')} showed there)` : ''
  return `${severity}: ${object}: ${text}${cost}${repaired ? ' (repaired)' : ''}`
}

function verdict({ clean, usable, findings }: PoolCheckView): string {
  if (clean) return findings.length === 0 ? 'Nothing is wrong.' : 'All of it is repaired.'
  return usable ? 'What is not named above is whole.' : 'The pool cannot be opened like this.'
}

/** Somebody watches, and a check can take minutes. */
function showProgress(
  { terminal }: Context,
  what: string,
  ask: () => Promise<CheckProgressView | null>,
): { stop: () => void } {
  const startedMs = performance.now()
  const seconds = () => Math.round((performance.now() - startedMs) / 1000)
  let over = terminal.json
  const timer = setInterval(async () => {
    // Its time is told also when the agent does not answer.
    const progress = over ? null : await ask().catch(() => null)
    const part = progress && progress.totalPages > 0 ? percent(progress.donePages, progress.totalPages) : undefined
    if (!over)
      terminal.progress(`${what}: reading the metadata, ${part === undefined ? '' : `${part}, `}${seconds()} s`)
  }, 1000).unref()
  const stop = (): void => {
    over = true
    clearInterval(timer)
  }
  return { stop }
}

function poolFacts(pool: PoolView): string[] {
  return facts([
    ['Pool', `${pool.name} (${pool.id})`],
    ['State', `${pool.state}: ${pool.reason}`],
    ['Space', figures(pool)],
    ['Data', bytes(pool.mappedBytes)],
    ['Virtual', `${bytes(pool.virtualBytes)} in ${pool.volumes.length} volumes`],
    ['Marks', pool.marks.map((mark) => `${mark} %`).join(', ')],
    ['Units', `${bytes(pool.unitBytes)}, blocks of ${bytes(pool.blockBytes)}`],
    ['Background', pool.background ?? 'nothing'],
    ...pool.devices.map((device, index): [string, string] => [
      `Device ${index}`,
      `${device.path} (${bytes(device.sizeBytes)})`,
    ]),
    ['Volumes', pool.volumes.join(', ') || 'none'],
  ])
}

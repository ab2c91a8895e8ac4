import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { parse } from 'yaml'
import { parseSize } from '../block/size.js'
import { StorageError } from '../block/storage-error.js'
import { GiB, MiB } from '../block/units.js'

export interface AgentConfig {
  /** Where sources reach this agent, HOST:PORT; undefined until the first pairing asks for it. */
  readonly listen: string | undefined
  /** Journals and replication files of outgoing streams, a folder each. */
  readonly bufferDirectory: string
  /** Replication files of one stream that wait to be applied at the destination. */
  readonly bufferLimitBytes: number
  readonly journalLimitBytes: number
  readonly segmentBytes: number
  /** Images of arriving volumes. */
  readonly inboundDirectory: string
  /** Front-end threads a volume. */
  readonly threads: number
  /** Open backings with O_DIRECT. */
  readonly direct: boolean
}

type Reader = (value: string) => unknown

/** Every option there is: where it stands in the file, and what it becomes. */
const options: Record<string, { readonly field: keyof AgentConfig; readonly read: Reader }> = {
  listen: { field: 'listen', read: String },
  'buffer.directory': { field: 'bufferDirectory', read: path.resolve },
  'buffer.limit': { field: 'bufferLimitBytes', read: parseSize },
  'journal.limit': { field: 'journalLimitBytes', read: parseSize },
  'journal.segment': { field: 'segmentBytes', read: segmentSize },
  'inbound.directory': { field: 'inboundDirectory', read: path.resolve },
  'volume.threads': { field: 'threads', read: threadCount },
  'volume.direct': { field: 'direct', read: yesOrNo },
}

/**
 * The configuration: defaults, and over them what the file says.
 *
 * @throws StorageError BAD_CONFIG naming the option
 */
export async function readConfig(file: string | undefined, stateDirectory: string): Promise<AgentConfig> {
  const defaults: AgentConfig = {
    listen: undefined,
    bufferDirectory: path.join(stateDirectory, 'buffer'),
    bufferLimitBytes: 8 * GiB,
    journalLimitBytes: 4 * GiB,
    segmentBytes: 32 * MiB,
    inboundDirectory: path.join(stateDirectory, 'inbound'),
    threads: 2,
    direct: false,
  }
  if (file === undefined) return defaults
  const given = await load(file)
  const result: Record<string, unknown> = { ...defaults }
  for (const [name, value] of flatten(given)) {
    const option = Object.hasOwn(options, name) ? options[name] : undefined
    if (!option)
      throw bad(file, `there is no option ${JSON.stringify(name)}; known: ${Object.keys(options).join(', ')}`)
    try {
      result[option.field] = option.read(String(value))
    } catch (cause) {
      throw bad(file, `${name}: ${cause instanceof StorageError ? cause.hint : String(cause)}`)
    }
  }
  return result as unknown as AgentConfig
}

async function load(file: string): Promise<unknown> {
  try {
    return parse(await readFile(file, 'utf8'), { maxAliasCount: 0 }) ?? {}
  } catch (cause) {
    throw bad(file, cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause))
  }
}

function flatten(value: unknown, prefix = ''): [string, unknown][] {
  if (typeof value !== 'object' || value === null) return [[prefix, value]]
  return Object.entries(value).flatMap(([key, inner]) => flatten(inner, prefix ? `${prefix}.${key}` : key))
}

function segmentSize(text: string): number {
  const bytes = parseSize(text)
  if (bytes % MiB !== 0 || bytes < 4 * MiB || bytes > GiB) throw new Error('use whole MiB, from 4MiB to 1GiB')
  return bytes
}

function threadCount(text: string): number {
  const count = Number(text)
  if (!Number.isInteger(count) || count < 1 || count > 16) throw new Error('use 1 to 16')
  return count
}

function yesOrNo(text: string): boolean {
  if (text !== 'true' && text !== 'false') throw new Error('use true or false')
  return text === 'true'
}

function bad(file: string, why: string): StorageError {
  return new StorageError('BAD_CONFIG', { op: 'agent', object: file, hint: `Correct the file: ${why}` })
}

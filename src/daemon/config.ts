import { open, realpath, stat } from 'node:fs/promises'
import path from 'node:path'
import { checkName } from '../block/names.js'
import { parseDuration, parseSize } from '../block/size.js'
import { StorageError } from '../block/storage-error.js'
import { whyStrangersMayChange, whyStrangersMayReplace } from '../block/strangers.js'
import { GiB, KiB, MiB } from '../block/units.js'

export interface AgentConfig {
  /** Where sources reach this agent, HOST:PORT; undefined until the first pairing asks for it. */
  readonly listen: string | undefined
  /** Journals and replication files of outgoing streams, a folder each. */
  readonly bufferDirectory: string
  /** Replication files of one stream that wait to be applied at the destination. */
  readonly bufferLimitBytes: number
  readonly journalLimitBytes: number
  readonly segmentBytes: number
  /** The backing of a stream's volumes is synced, and its journal before that given up, this often while there are writes. */
  readonly checkpointMs: number
  /** What is recorded, and copied again, as a whole. */
  readonly regionBytes: number
  /** Regions of a stream that are in its record, as bytes: what is read again after a power cut, at the most. */
  readonly regionLimitBytes: number
  /** Arrival buffers; and images of arriving volumes, where there is no pool for them. */
  readonly inboundDirectory: string
  /** Arriving volumes are made thin in this pool. */
  readonly inboundPool: string | undefined
  /** A write that finds its pool full waits so long before it fails. */
  readonly poolWaitMs: number
  /** Percentages of a pool, ascending, that raise an event; at the last one snapshots and clones are refused. */
  readonly poolMarks: readonly number[]
  /** Front-end threads a volume. */
  readonly threads: number
  /** Open backings with O_DIRECT. */
  readonly direct: boolean
}

type Reader = (value: string) => unknown

/** Every option there is: where it stands in the file, and what it becomes. */
const options: Record<string, { readonly field: keyof AgentConfig; readonly read: Reader; readonly list?: true }> = {
  listen: { field: 'listen', read: String },
  'buffer.directory': { field: 'bufferDirectory', read: path.resolve },
  'buffer.limit': { field: 'bufferLimitBytes', read: parseSize },
  'journal.limit': { field: 'journalLimitBytes', read: parseSize },
  'journal.segment': { field: 'segmentBytes', read: segmentSize },
  'journal.checkpoint': { field: 'checkpointMs', read: checkpointTime },
  'regions.size': { field: 'regionBytes', read: regionSize },
  'regions.limit': { field: 'regionLimitBytes', read: parseSize },
  'inbound.directory': { field: 'inboundDirectory', read: path.resolve },
  'inbound.pool': { field: 'inboundPool', read: (text) => checkName('pool', text) },
  'pool.wait': { field: 'poolWaitMs', read: parseDuration },
  'pool.marks': { field: 'poolMarks', read: percentages, list: true },
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
    checkpointMs: 5_000,
    regionBytes: MiB,
    regionLimitBytes: 16 * GiB,
    inboundDirectory: path.join(stateDirectory, 'inbound'),
    inboundPool: undefined,
    poolWaitMs: 60_000,
    poolMarks: [70, 85, 95],
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
      result[option.field] = option.read(textOf(value, option.list === true))
    } catch (cause) {
      throw bad(file, `${name}: ${cause instanceof StorageError ? cause.hint : String(cause)}`)
    }
  }
  return result as unknown as AgentConfig
}

async function load(file: string): Promise<unknown> {
  // Loaded when there is a file: it takes as long as the agent's own code, and 8 MiB.
  const { parse } = await import('yaml')
  try {
    return parse(await readOwn(file), { maxAliasCount: 0 }) ?? {}
  } catch (cause) {
    throw bad(file, cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause))
  }
}

/** It says where the agent writes, as root. What is looked at is what is read. */
async function readOwn(file: string): Promise<string> {
  const handle = await open(file, 'r')
  try {
    const folder = path.dirname(await realpath(file))
    refuseStrangers('file', whyStrangersMayChange(await handle.stat()))
    refuseStrangers(`folder ${folder}`, whyStrangersMayReplace(await stat(folder)))
    return await handle.readFile('utf8')
  } finally {
    await handle.close()
  }
}

function refuseStrangers(what: string, why: string | undefined): void {
  if (why !== undefined) throw new Error(`the ${what} is not the agent's alone: ${why}. Use chown root and chmod go-w`)
}

function flatten(value: unknown, prefix = ''): [string, unknown][] {
  if (Array.isArray(value) || typeof value !== 'object' || value === null) return [[prefix, value]]
  return Object.entries(value).flatMap(([key, inner]) => flatten(inner, prefix ? `${prefix}.${key}` : key))
}

/** What is missing is not a directory called null. */
function textOf(value: unknown, isList: boolean): string {
  if (Array.isArray(value) && !isList) throw new Error('use one value, not a list')
  const values: unknown[] = Array.isArray(value) ? value : [value]
  const isBare = values.every((one) => one !== null && typeof one !== 'object' && one !== '')
  if (!isBare) throw new Error('it has no value; give one, or leave it out')
  return values.join(',')
}

function segmentSize(text: string): number {
  const bytes = parseSize(text)
  if (bytes % MiB !== 0 || bytes < 4 * MiB || bytes > GiB) throw new Error('use whole MiB, from 4MiB to 1GiB')
  return bytes
}

function checkpointTime(text: string): number {
  const milliseconds = parseDuration(text)
  if (milliseconds < 100 || milliseconds > 60_000) throw new Error('use 100ms to 1m')
  return milliseconds
}

function regionSize(text: string): number {
  const bytes = parseSize(text)
  const sound = bytes >= 64 * KiB && bytes <= 64 * MiB && Number.isInteger(Math.log2(bytes))
  if (!sound) throw new Error('use a power of two, from 64KiB to 64MiB')
  return bytes
}

function percentages(text: string): readonly number[] {
  const marks = text.split(',').map(Number)
  const ascending = marks.every((mark, index) => mark > (marks[index - 1] ?? 0) && mark <= 100)
  if (!ascending || marks.length > 10) throw new Error('use up to ten percentages, ascending, such as 70, 85, 95')
  return marks
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

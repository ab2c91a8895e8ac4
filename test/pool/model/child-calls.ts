import type { CreatePoolOptions, ThinPool } from '../../../src/pool/thin-pool.js'

/** What the parent asks of the process that has the pool open. */
export interface Request {
  readonly id: number
  readonly method: string
  readonly parameters: readonly unknown[]
}

export type Reply =
  | { readonly id: number; readonly value?: unknown }
  | { readonly id: number; readonly error: { readonly code: string; readonly message: string } }

/** Methods of ThinPool that the parent calls by their own names. */
export const passedOn = [
  'facts',
  'volumes',
  'volume',
  'createVolume',
  'removeVolume',
  'renameVolume',
  'resizeVolume',
  'createSnapshot',
  'removeSnapshot',
  'rollback',
  'discardWrites',
  'createClone',
  'setImage',
  'diff',
  'mapped',
  'extend',
] as const satisfies readonly (keyof ThinPool)[]

export type PassedOn = (typeof passedOn)[number]

export interface OpenSettings {
  /** How long a write waits for space before it fails. */
  readonly waitForSpaceMs?: number
  readonly marks?: readonly number[]
}

/** Facts about a process, as cheap as they are to get. */
export interface ProcessFacts {
  readonly residentBytes: number
  readonly javascriptCalls: number
}

/** What the process does beyond the pool's own methods. */
export interface OwnCalls {
  createPool(options: CreatePoolOptions): Promise<void>
  openPool(paths: readonly string[], settings: OpenSettings): Promise<void>
  closePool(): Promise<void>
  /** Open a volume or snapshot and serve its file on `mountPoint`, which is made, after what a killed process left there. */
  serve(volume: string, snapshot: string | null, mountPoint: string, readOnly: boolean): Promise<void>
  /** Open a snapshot to be written, and close it. */
  beginToWrite(volume: string, snapshot: string): Promise<void>
  /** Give what is served there a loop device, resolving to its name. */
  attach(mountPoint: string): Promise<string>
  /** Take the loop device away. */
  detach(mountPoint: string): Promise<void>
  /** Close the volume or snapshot that is served there. */
  close(mountPoint: string): Promise<void>
  /** Open and attach in one step, without serving first, resolving to the device. */
  open(volume: string, snapshot: string | null, mountPoint: string, readOnly: boolean): Promise<string>
  counters(mountPoint: string): Promise<Record<string, number>>
  nextMapped(mountPoint: string, offset: number): Promise<number | null>
  process(): Promise<ProcessFacts>
  /** The pool looks at itself. While nothing is written. @throws when something is not as it should be */
  audit(): Promise<void>
  /** Nothing goes on in the background any more. */
  settled(): Promise<void>
  /** Milliseconds the call itself took, in this process. */
  timedSnapshot(volume: string, name: string): Promise<number>
  timedOpen(volume: string, mountPoint: string): Promise<{ device: string; milliseconds: number }>
  /** What the pool reported since the last call. */
  events(): Promise<{ readonly code: string; readonly severity: string; readonly text: string }[]>
}

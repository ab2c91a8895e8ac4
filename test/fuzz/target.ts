/** One decoder, or a few that belong together, fed with bytes that somebody else made. */
export interface FuzzTarget {
  /** Inputs that decode: where the mutations begin. */
  seeds(): Buffer[]
  /** Anything it throws but a StorageError is a finding, and so is an input it takes too long or too much memory for. */
  run(input: Buffer): void | Promise<void>
  /** Pieces worth trying whole. */
  readonly words?: readonly Buffer[]
}

/** @param folder a private folder for files of the target's own */
export type OpenTarget = (folder: string) => FuzzTarget | Promise<FuzzTarget>

/** Nothing longer is tried. */
export const INPUT_LIMIT = 64 * 1024

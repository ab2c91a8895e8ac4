/** What the fuzzer's two threads tell each other. */
export interface FuzzJob {
  readonly target: string
  readonly module: string
  readonly folder: string
  readonly seconds: number
  readonly seed: number
  readonly nice: number
  readonly corpus: readonly Uint8Array[]
  /** Tell of each input that reaches something new. */
  readonly save: boolean
  /** No search: tell of each input of the corpus that reaches what the seeds and shorter ones do not. */
  readonly minimise: boolean
  /** Without coverage: mutations of the corpus alone. */
  readonly blind: boolean
  /** The input under way, and in `currentLength` its length and how many there were. */
  readonly current: SharedArrayBuffer
  readonly currentLength: SharedArrayBuffer
}

export type FuzzMessage =
  /** Its thread, below /proc. */
  | { readonly kind: 'ready'; readonly thread: string }
  | { readonly kind: 'new'; readonly input: Uint8Array; readonly name: string }
  | { readonly kind: 'finding'; readonly input: Uint8Array; readonly text: string }
  | {
      readonly kind: 'done'
      readonly runs: number
      readonly blocks: number
      readonly codes: [string, number][]
      readonly corpus: number
    }

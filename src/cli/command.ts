import type { CheckProgressView, KeptDeviceView, PoolCheckView } from '../api/agent-operations.js'
import type { AgentClient } from './agent-client.js'
import type { Terminal } from './terminal.js'

/** What main.ts lends to the commands that do not talk to a running agent. */
export interface LocalPrograms {
  runAgent(options: { stateDirectory: string; configFile: string | undefined }): Promise<void>
  inspectFile(options: {
    file: string
    stateDirectory: string | undefined
    json: boolean
    write: (text: string) => void
  }): Promise<void>
  /** Of a pool that no agent has open, by its devices. */
  checkPool(
    options: { paths: readonly string[]; repair: boolean },
    onProgress: (progress: CheckProgressView) => void,
  ): Promise<PoolCheckView>
  /** What the keeper of this state directory holds; nothing when there is none. */
  listKept(stateDirectory: string): Promise<readonly KeptDeviceView[]>
  abortKept(stateDirectory: string, name: string): Promise<void>
}

export interface Context {
  readonly agent: AgentClient
  readonly terminal: Terminal
  readonly local: LocalPrograms
}

export interface Option {
  /** `--path PATH`; without a value it is a switch. */
  readonly flags: `--${string}`
  readonly summary: string
  /** `repeatable` is given once at least, `any` as often as one likes. */
  readonly kind?: 'required' | 'repeatable' | 'any'
}

/** What was typed: arguments by name in lower case, options by name without dashes. */
export interface Typed {
  readonly argument: (name: string) => string
  readonly optionalArgument: (name: string) => string | undefined
  readonly option: (name: string) => string | undefined
  readonly options: (name: string) => readonly string[]
  /** Every option that may be repeated, in the order they were typed. */
  readonly sequence: readonly { readonly name: string; readonly value: string }[]
  /** The last argument (`PATH...`) and all after it. */
  readonly rest: readonly string[]
  readonly flag: (name: string) => boolean
}

export interface Command {
  /** `volume adopt` */
  readonly name: string
  /** `NAME`, `[NAME]`; the last may be `PATH...` */
  readonly arguments: readonly string[]
  readonly options: readonly Option[]
  /** How it is typed, without `tidemark` and its name. */
  readonly usage: string
  /** One sentence. */
  readonly summary: string
  /** Whole, as typed. */
  readonly example: string
  readonly run: (context: Context, typed: Typed) => Promise<void>
}

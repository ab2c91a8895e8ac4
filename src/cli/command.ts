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
  readonly kind?: 'required' | 'repeatable'
}

/** What was typed: arguments by name in lower case, options by name without dashes. */
export interface Typed {
  readonly argument: (name: string) => string
  readonly optionalArgument: (name: string) => string | undefined
  readonly option: (name: string) => string | undefined
  readonly options: (name: string) => readonly string[]
  readonly flag: (name: string) => boolean
}

export interface Command {
  /** `volume adopt` */
  readonly name: string
  /** `NAME`, `[NAME]` */
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

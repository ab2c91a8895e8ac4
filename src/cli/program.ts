/** From what was typed to a command and an exit code: 0 done, 1 refused or failed, 2 wrong usage. */
import { Command as Commander, type CommanderError } from 'commander'
import { AgentClient } from './agent-client.js'
import type { Command, Context, LocalPrograms, Option, Typed } from './command.js'
import { commands, groups } from './commands.js'
import { CommandFailure, UsageError } from './failure.js'
import { type Streams, Terminal } from './terminal.js'
import { safeJson, visible, visibleLines } from './text.js'

const DEFAULT_SOCKET = '/var/lib/tidemark/agent.sock'

export interface ProgramOptions {
  readonly version: string
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly streams: Streams
  readonly local: LocalPrograms
}

/** Run one command line; what it prints is out when it resolves. */
export async function runProgram(argv: readonly string[], options: ProgramOptions): Promise<number> {
  const json = argv.includes('--json')
  const { stderr, stdout } = options.streams
  const root = build(options)
  try {
    await root.parseAsync([...argv], { from: 'user' })
    return 0
  } catch (error) {
    if (error instanceof UsageRefusal) {
      const { help, exitCode, usage, message } = error
      if (help !== undefined && (exitCode === 0 || !json)) {
        const stream = exitCode === 0 ? stdout : stderr
        stream.write(help)
        return exitCode
      }
      if (json) stderr.write(`${safeJson({ error: usageDetail(message || 'the command is not complete', usage) })}\n`)
      else stderr.write(`tidemark: ${visible(message)}\nusage: ${usage}\n`)
      return 2
    }
    const detail = detailOf(error)
    if (json) stderr.write(`${safeJson({ error: detail })}\n`)
    else stderr.write(`tidemark: ${visible(`${detail.message}. ${detail.hint}`)}\n`)
    return 1
  }
}

function usageDetail(message: string, usage: string): CommandFailure['detail'] {
  return { code: 'USAGE', op: 'tidemark', object: 'command line', message, hint: `usage: ${usage}`, retry: 'never' }
}

/** An error of a local program (the agent's start, inspect) has the same fields as one from the API. */
function detailOf(error: unknown): CommandFailure['detail'] {
  if (error instanceof CommandFailure) return error.detail
  const { code, op, object, message, hint, retry } = error as Partial<CommandFailure['detail']>
  if (typeof hint === 'string' && typeof code === 'string') {
    return { code, op: op ?? '', object: object ?? '', message: message ?? code, hint, retry: retry ?? 'never' }
  }
  const text = error instanceof Error ? error.message : String(error)
  return {
    code: 'INTERNAL',
    op: 'tidemark',
    object: 'command',
    message: `the command failed: ${text}`,
    hint: 'This is a fault of tidemark itself; please report it with the command that was typed.',
    retry: 'never',
  }
}

/** A way out of commander: help that was asked for, or what was typed wrong in which command. */
class UsageRefusal extends Error {
  readonly usage: string
  readonly help: string | undefined
  readonly exitCode: number

  constructor(message: string, usage: string, help?: string, exitCode = 2) {
    super(message)
    this.usage = usage
    this.help = help
    this.exitCode = exitCode
  }
}

function build(options: ProgramOptions): Commander {
  const root = new Commander('tidemark')
  let printed = ''
  const print = (text: string) => {
    printed += visibleLines(text)
  }
  const prepare = (command: Commander, usage: string) => {
    const whole = `${pathOf(command)} ${usage}`.trim()
    command.configureHelp({
      showGlobalOptions: true,
      commandUsage: () => whole,
      subcommandTerm: (inner) => inner.name(),
      optionTerm: (option) => option.flags.replace(/[<>]/g, ''),
    })
    command.configureOutput({
      writeOut: print,
      writeErr: print,
      outputError: () => {},
      getOutHelpWidth: () => 100,
      getErrHelpWidth: () => 100,
    })
    command.helpOption('--help', 'show how it is used')
    command.helpCommand(false)
    command.exitOverride((error) => {
      throw refusalOf(error, whole, printed)
    })
  }
  prepare(root, '[--agent SOCKET] [--json] COMMAND ...')
  root.description(
    'Asynchronous IP mirroring of block volumes. Sizes are given as 512MiB or 1GiB, times as 500ms or 1s.',
  )
  root.version(options.version, '--version', 'print the version')
  root.option('--agent <SOCKET>', `the agent's socket (default: TIDEMARK_AGENT or ${DEFAULT_SOCKET})`)
  root.option('--json', 'print one JSON document, errors too')
  const parents = new Map<string, Commander>([['', root]])
  for (const definition of commands) {
    const words = definition.name.split(' ')
    const leaf = words.pop()!
    const command = parentOf(words.join(' '), parents, prepare).command(leaf)
    parents.set(definition.name, command)
    prepare(command, definition.usage)
    define(command, definition, options, root)
  }
  return root
}

function parentOf(
  name: string,
  parents: Map<string, Commander>,
  prepare: (command: Commander, usage: string) => void,
): Commander {
  const known = parents.get(name)
  if (known) return known
  const group = parents.get('')!.command(name)
  const members = commands.filter((command) => command.name.startsWith(`${name} `))
  group.description(groups[name] ?? '')
  prepare(group, `${members.map((command) => command.name.slice(name.length + 1)).join('|')} ...`)
  parents.set(name, group)
  return group
}

function define(command: Commander, definition: Command, options: ProgramOptions, root: Commander): void {
  command.description(definition.summary)
  command.addHelpText('after', `\nExample:\n  ${definition.example}`)
  for (const name of definition.arguments) {
    command.argument(name.startsWith('[') ? name.toLowerCase() : `<${name.toLowerCase()}>`)
  }
  const sequence: { name: string; value: string }[] = []
  for (const option of definition.options) addOption(command, option, sequence)
  command.action(async () => {
    const { agent, json } = root.opts<{ agent?: string; json?: boolean }>()
    const socket = agent || options.environment.TIDEMARK_AGENT || DEFAULT_SOCKET
    const terminal = new Terminal(options.streams, json === true)
    const context: Context = { agent: new AgentClient(socket), terminal, local: options.local }
    try {
      await definition.run(context, typedOf(command, definition, sequence))
    } catch (error) {
      if (!(error instanceof UsageError)) throw error
      throw new UsageRefusal(error.message, `tidemark ${definition.name} ${definition.usage}`)
    } finally {
      terminal.clearProgress()
    }
  })
}

function addOption(
  command: Commander,
  { flags, summary, kind }: Option,
  sequence: { name: string; value: string }[],
): void {
  const [long, value] = flags.split(' ')
  const shape = value ? `${long} <${value}>` : long!
  const collect = (next: string, all: string[] | undefined) => {
    sequence.push({ name: long!.slice(2), value: next })
    return [...(all ?? []), next]
  }
  if (kind === 'repeatable') command.requiredOption(shape, summary, collect)
  else if (kind === 'any') command.option(shape, summary, collect)
  else if (kind === 'required') command.requiredOption(shape, summary)
  else command.option(shape, summary)
}

function typedOf(command: Commander, definition: Command, sequence: Typed['sequence']): Typed {
  const values: Record<string, string | undefined> = {}
  for (const [index, value] of command.args.entries()) {
    const name = definition.arguments[Math.min(index, definition.arguments.length - 1)]!.replace(/[[\].]/g, '')
    if (value === '') throw new UsageError(`${name} is empty`)
    values[name] ??= value
  }
  const option = (name: string) => command.getOptionValue(name.replace(/-(\w)/g, (_, letter) => letter.toUpperCase()))
  return {
    argument: (name) => values[name] ?? '',
    optionalArgument: (name) => values[name],
    option,
    options: (name) => option(name) ?? [],
    // The parser takes `--no-repair` for a switch `repair` that is on.
    flag: (name) => (name.startsWith('no-') ? option(name.slice(3)) === false : option(name) === true),
    sequence,
    rest: command.args.slice(definition.arguments.length - 1),
  }
}

function pathOf(command: Commander): string {
  return command.parent ? `${pathOf(command.parent)} ${command.name()}` : command.name()
}

function refusalOf(error: CommanderError, usage: string, printed: string): UsageRefusal {
  if (error.code === 'commander.helpDisplayed' || error.code === 'commander.version') {
    return new UsageRefusal('', usage, printed, 0)
  }
  // A group without its command: the whole help is the right usage.
  if (error.code === 'commander.help') return new UsageRefusal('', usage, printed, 2)
  return new UsageRefusal(error.message.replace(/^error: /, '').replace(/\n/g, ' '), usage)
}

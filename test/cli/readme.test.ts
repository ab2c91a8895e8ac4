import { readFileSync } from 'node:fs'
import t from 'tap'
import { runProgram } from '../../src/cli/program.js'
import { checkView } from '../api/fake-operations.js'

const root = new URL('../../../', import.meta.url)
const readme = new URL('README.md', root)

/** The README's section, from `## Commands` to the next of its rank. */
function commandsSection(): string {
  const text = readFileSync(readme, 'utf8')
  return /^## Commands$.*?(?=^## |$(?![\s\S]))/ms.exec(text)?.[0] ?? ''
}

async function help(words: readonly string[]): Promise<string> {
  let printed = ''
  const stream = {
    write: (text: string) => {
      printed += text
    },
  } as unknown as NodeJS.WriteStream
  await runProgram([...words, '--help'], {
    version: '0.0.0',
    environment: {},
    streams: { stdin: process.stdin, stdout: stream, stderr: stream },
    local: {
      runAgent: async () => {},
      inspectFile: async () => {},
      checkPool: async () => checkView('p'),
      listKept: async () => [],
      abortKept: async () => {},
    },
  })
  return printed
}

/** The first words of a help text's section (`Options:`, `Commands:`). */
function entries(text: string, heading: string): string[] {
  const section = new RegExp(`^${heading}:\\n((?: .*\\n)+)`, 'm').exec(text)?.[1] ?? ''
  return [...section.matchAll(/^ {2}(\S+)/gm)].map(([, word]) => word!)
}

interface Helped {
  readonly usage: string
  readonly options: string[]
}

/** Every command that does something, found by following the help from its top. */
async function allHelp(words: readonly string[] = []): Promise<Helped[]> {
  const text = await help(words)
  const usage = /^Usage: (.*)$/m.exec(text)![1]!
  const inner: Helped[] = []
  for (const name of entries(text, 'Commands')) inner.push(...(await allHelp([...words, name])))
  const own = usage.endsWith(' ...')
    ? []
    : [{ usage, options: entries(text, 'Options').filter((option) => option !== '--help') }]
  return [...own, ...inner]
}

t.test('the README has every command of --help as it is typed, and no other', async (t) => {
  const section = commandsSection()
  const written = [...section.matchAll(/^- `(tidemark [^`]*)`/gm)].map(([, usage]) => usage!)
  t.same(written.toSorted(), (await allHelp()).map(({ usage }) => usage).toSorted())
  t.ok(written.length >= 40)
})

t.test('each command in the README has the options of its --help, and no other', async (t) => {
  const section = commandsSection()
  for (const { usage, options } of await allHelp()) {
    const item = section.slice(section.indexOf(`- \`${usage}\``)).split(/\n(?=- `|#)/)[0]!
    const written = [...item.matchAll(/^ {2}- `(--[a-z-]+)/gm)].map(([, option]) => option!)
    t.same(written, options, usage)
    for (const option of options) t.ok(usage.includes(option), `${option} is in the usage line of ${usage}`)
    for (const [option] of usage.matchAll(/--[a-z-]+/g)) t.ok(options.includes(option), `${usage} has ${option}`)
    t.match(item, /^ {2}- Example: `tidemark /m, usage)
  }
})

t.test('the README has the options of every command', async (t) => {
  const section = commandsSection()
  const top = section.slice(0, section.indexOf('\n### '))
  const written = [...top.matchAll(/`(--[a-z-]+)(?: [A-Z]+)?`:/g)].map(([, option]) => option!)
  t.same(written.toSorted(), entries(await help([]), 'Options').toSorted())
})

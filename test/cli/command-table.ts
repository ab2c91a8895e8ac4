import { startFakeApi } from '../api/fake-api.js'
import { runCli } from './run-cli.js'

/** What is typed; the operation it becomes; the JSON it prints; what people see. */
export type CommandRow = readonly [words: string, call: unknown[], json: unknown, human: RegExp]

type Tap = Parameters<typeof startFakeApi>[0] & Pick<typeof import('tap').t, 'equal' | 'same' | 'match'>

/** Each row as people type it, and with --json. */
export async function checkCommands(t: Tap, table: readonly CommandRow[]): Promise<void> {
  const { operations, socketPath } = await startFakeApi(t)
  for (const [line, call, json, human] of table) {
    const words = line.split(' ')
    const [plain, document] = await Promise.all([
      runCli(words, { socketPath }),
      runCli([...words, '--json'], { socketPath }),
    ])
    t.equal(plain.code, 0, `${line}: ${plain.stderr}`)
    t.same(operations.calls.splice(0), [call, call], line)
    t.match(plain.stdout, human, line)
    t.equal(document.code, 0, line)
    t.match(document.json, json, `${line} --json`)
    t.equal(document.stderr, '', `${line} --json`)
  }
}

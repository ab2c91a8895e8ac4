import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { privateFolder } from '../api/fake-api.js'

const checkout = fileURLToPath(new URL('../../../', import.meta.url))

function run(file: string, words: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(file, words, { cwd: '/' }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr })
    })
  })
}

t.test('tools/tidemark runs the checkout it lies in, from anywhere and through links', async (t) => {
  const folder = privateFolder(t)
  symlinkSync(path.join(checkout, 'tools/tidemark'), path.join(folder, 'one'))
  symlinkSync('one', path.join(folder, 'two'))
  for (const file of [path.join(checkout, 'tools/tidemark'), path.join(folder, 'two')]) {
    t.match(await run(file, ['--version']), { code: 0, stdout: /^\d+\.\d+\.\d+\n$/ }, file)
  }
  t.match(await run(path.join(folder, 'two'), ['volume', 'bogus']), { code: 2 })
})

t.test('tools/tidemark in a checkout that is not built says how to build it', async (t) => {
  const folder = privateFolder(t)
  mkdirSync(path.join(folder, 'tools'))
  cpSync(path.join(checkout, 'tools/tidemark'), path.join(folder, 'tools/tidemark'))
  t.match(await run(path.join(folder, 'tools/tidemark'), []), { code: 1, stderr: `Build it: cd ${folder} && npm ci` })
})

t.test('nothing of the agent is loaded for a command', async (t) => {
  const folder = privateFolder(t)
  // The engine's own list of what it has run. By env(1), which also keeps out what the test runner puts into children.
  const environment = [`NODE_V8_COVERAGE=${folder}`, 'TIDEMARK_AGENT=/nowhere/agent.sock']
  const program = [process.execPath, path.join(checkout, 'dist/src/main.js'), 'volume', 'list']
  const { stderr } = await run('/usr/bin/env', ['-i', ...environment, ...program])
  t.match(stderr, /^tidemark: /, 'it ran, and found no agent')
  const loaded = readdirSync(folder)
    .flatMap(
      (name) => (JSON.parse(readFileSync(path.join(folder, name), 'utf8')) as { result: { url: string }[] }).result,
    )
    .filter(({ url }) => url.startsWith('file:'))
    .map(({ url }) => path.relative(checkout, fileURLToPath(url)))
  const below = (start: string) =>
    [
      ...new Set(loaded.filter((file) => file.startsWith(start)).map((file) => file.slice(start.length).split('/')[0])),
    ].sort()
  t.same(below('node_modules/'), ['commander'])
  t.same(below('dist/src/'), ['cli', 'main.js'])
})

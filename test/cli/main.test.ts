import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, symlinkSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { privateFolder } from '../api/fake-api.js'
import { runCli } from './run-cli.js'

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

t.test('a command starts in little more than the time Node itself takes', async (t) => {
  const measure = async (program: () => Promise<unknown>) => {
    let bestMs = Number.POSITIVE_INFINITY
    for (let turn = 0; turn < 5; turn += 1) {
      const startedMs = performance.now()
      await program()
      bestMs = Math.min(bestMs, performance.now() - startedMs)
    }
    return bestMs
  }
  const nodeMs = await measure(() => run(process.execPath, ['-e', '0']))
  const commandMs = await measure(() => runCli(['volume', 'list'], { socketPath: '/nowhere/agent.sock' }))
  t.comment(`node ${nodeMs.toFixed(0)} ms, tidemark ${commandMs.toFixed(0)} ms`)
  t.ok(commandMs < nodeMs * 10, 'nothing of the agent is loaded for a command')
})

import t from 'tap'
import { startApi } from '../../src/api/server.js'
import { startFakeApi } from '../api/fake-api.js'
import { runCli } from './run-cli.js'

t.setTimeout(400_000)

const copying = { state: 'initializing', reason: 'copying', initialize: { doneBytes: 1024, totalBytes: 4096 } } as const

t.test('initialize --wait returns when the stream replicates, with progress on stderr', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  operations.states = [copying, { ...copying, state: 'waiting', reason: 'link down' }, {}]
  const outcome = await runCli(['stream', 'initialize', 'gold', '--wait'], { socketPath })
  t.match(outcome, { code: 0, stdout: 'Stream gold is replicating: all is sent\n' })
  t.match(outcome.stderr, /^gold: initialising, 1\.0 KiB of 4\.0 KiB \(25 %\), 1\.0 MiB\/s\n$/)
  t.same(
    operations.calls.map(([name]) => name),
    ['streamInitialize', 'streamStatus', 'streamStatus', 'streamStatus'],
  )
  operations.states = [copying, {}]
  const json = await runCli(['stream', 'initialize', 'gold', '--wait', '--json'], { socketPath })
  t.match(json, { code: 0, json: { name: 'gold', state: 'replicating' } })
})

t.test('waiting ends with exit 1 when the stream cannot get there', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  operations.waits = [false]
  for (const state of ['failed', 'diverged', 'paused'] as const) {
    for (const command of ['initialize', 'flush']) {
      operations.states = [{ state, reason: 'disk gone' }]
      const outcome = await runCli(['stream', command, 'gold', '--wait'], { socketPath })
      t.match(outcome, { code: 1, stdout: '' }, `${command} ${state}`)
      t.match(outcome.stderr, new RegExp(`tidemark: stream ${command} gold: .*${state}.*\\n$`), `${command} ${state}`)
    }
  }
})

t.test('flush --wait returns when the destination has applied the epoch', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  operations.waits = [false, false, true]
  const outcome = await runCli(['stream', 'flush', 'gold', '--wait'], { socketPath })
  t.match(outcome, { code: 0, stdout: /everything up to epoch 12 .* is applied at backup\n$/ })
  t.match(outcome.stderr, /^gold: replicating, 4\.0 KiB waiting, oldest 1 min 15 s, .*epoch 1 of 12 applied\n$/)
  t.same(
    operations.calls.map(([name, , epoch]) => [name, epoch]),
    [
      ['streamFlush', undefined],
      ['streamWait', 12],
      ['streamWait', 12],
      ['streamWait', 12],
    ],
  )
  const json = await runCli(['stream', 'flush', 'gold', '--wait', '--json'], { socketPath })
  t.match(json.json, { epoch: 12, lsn: '18446744073709551615', done: true, stream: { name: 'gold' } })
})

t.test('Ctrl-C stops the waiting, not the work, and says so in one line', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  operations.waits = [false]
  operations.states = [copying]
  for (const command of ['initialize', 'flush']) {
    const startedMs = performance.now()
    const outcome = await runCli(['stream', command, 'gold', '--wait'], {
      socketPath,
      onOutput: (child, _, stderr) => {
        if (stderr.startsWith('gold:') && !stderr.includes('tidemark')) child.kill('SIGINT')
      },
    })
    t.match(
      outcome,
      { code: 1, stdout: '', stderr: /\ntidemark: stream gold: stopped waiting; the work goes on.*\n$/ },
      command,
    )
    t.ok(performance.now() - startedMs < 20_000, 'it ends by itself')
  }
})

t.test('an agent that is replaced in the meantime is waited for', async (t) => {
  const { operations, socketPath, log, api } = await startFakeApi(t)
  operations.waits = [false]
  let replaced: Promise<unknown> | undefined
  const outcome = await runCli(['stream', 'flush', 'gold', '--wait'], {
    socketPath,
    onOutput: () => {
      replaced ??= (async () => {
        await api.close()
        await new Promise((resolve) => setTimeout(resolve, 700))
        operations.waits = [true]
        const next = await startApi({ operations, socketPath, log })
        t.teardown(() => next.close())
      })()
    },
  })
  await replaced
  t.match(outcome, { code: 0, stdout: /is applied/ })
})

t.test('clone create and refresh --wait return when everything is copied, with progress on stderr', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  const done = { volume: 'db', complete: true, progress: null, reason: 'as db was at noon' }
  const part = { ...done, complete: false, progress: { doneBytes: 1024, totalBytes: 4096 }, reason: 'being copied' }
  for (const words of ['clone create db copy --full --wait', 'clone refresh copy --wait']) {
    operations.images = [part, part, done]
    const outcome = await runCli(words.split(' '), { socketPath })
    t.match(outcome, { code: 0, stdout: /^Volume copy is a complete image of db/ }, words)
    t.match(outcome.stderr, /^copy: copying, 1\.0 KiB of 4\.0 KiB \(25 %\)\n$/, words)
  }
  operations.images = [part]
  t.match(await runCli(['clone', 'refresh', 'copy'], { socketPath }), { code: 0, stdout: /becomes a complete image/ })
  operations.images = [part, { ...part, progress: null, reason: 'its copy was interrupted' }]
  const interrupted = await runCli(['clone', 'refresh', 'copy', '--wait'], { socketPath })
  t.match(interrupted, { code: 1, stdout: '', stderr: /tidemark: clone copy: its copy was interrupted.*clone refresh/ })
})

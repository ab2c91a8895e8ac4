import { writeFileSync } from 'node:fs'
import { getPriority } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t, { type Test } from 'tap'
import { WorkerCalls } from '../../src/block/worker-calls.js'
import { repositoryRoot, scratchFolder } from '../fixtures/paths.js'

/** A worker with these methods, as `serveCalls` takes them. */
function workerWith(t: Test, methods: string, before = ''): WorkerCalls {
  const script = join(scratchFolder(t, 'worker'), 'worker.mjs')
  const calls = pathToFileURL(join(repositoryRoot, 'dist/src/block/worker-calls.js')).href
  writeFileSync(
    script,
    `import { comeAfterHosts, serveCalls } from ${JSON.stringify(calls)}\n${before}\nserveCalls(${methods})\n`,
  )
  const worker = new WorkerCalls(pathToFileURL(script))
  t.teardown(() => worker.close())
  return worker
}

t.test('a worker that says so comes after hosts', async (t) => {
  const priority = "import { getPriority } from 'node:os'"
  const methods = '{ priority: () => getPriority() }'
  const own = getPriority()
  t.equal(await workerWith(t, methods, priority).call('priority', 0), own)
  t.equal(await workerWith(t, methods, `${priority}; comeAfterHosts()`).call('priority', 0), own + 5)
})

t.test('what a method tells of itself comes before its answer, to its own caller alone', async (t) => {
  const worker = workerWith(
    t,
    "{ count: async (to, tell) => { for (let n = 1; n <= to; n++) tell(n); return 'done' } }",
  )
  const told: unknown[] = []
  const answers = [worker.call('count', 3, (progress) => told.push(progress)), worker.call('count', 2)]
  t.same(await Promise.all(answers), ['done', 'done'])
  t.same(told, [1, 2, 3])
})

t.test('a call that takes no turn is answered while others wait, and its failure is its own', async (t) => {
  const worker = workerWith(
    t,
    `{ wait: async () => { await gate; return 'waited' }, next: () => 'next' },
     { open: () => { open(); return 'opened' }, fail: () => { throw new Error('failed') } }`,
    'let open; const gate = new Promise((resolve) => { open = resolve })',
  )
  const order: unknown[] = []
  const note = (answer: unknown): number => order.push(answer)
  const waiting = [worker.call('wait', 0).then(note), worker.call('next', 0).then(note)]
  await t.rejects(worker.call('fail', 0), { message: 'failed' })
  await worker.call('open', 0).then(note)
  await Promise.all(waiting)
  t.same(order, ['opened', 'waited', 'next'])
})

t.test(
  'a worker that dies fails what waits, to be tried again, and the next call is answered by another',
  async (t) => {
    const worker = workerWith(t, "{ die: () => process.kill(process.pid, 'SIGKILL'), pid: () => process.pid }")
    const first = await worker.call<number>('pid', 0)
    const calls = [worker.call('die', 0), worker.call('pid', 0)]
    for (const call of calls) await t.rejects(call, { code: 'WORKER_ENDED', retry: 'later', message: /SIGKILL/ })
    t.not(await worker.call('pid', 0), first)
  },
)

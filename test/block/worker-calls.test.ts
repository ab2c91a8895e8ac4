import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { WorkerCalls } from '../../src/block/worker-calls.js'
import { repositoryRoot, scratchFolder } from '../fixtures/paths.js'

t.test('what a method tells of itself comes before its answer, to its own caller alone', async (t) => {
  const script = join(scratchFolder(t, 'worker'), 'worker.mjs')
  const calls = pathToFileURL(join(repositoryRoot, 'dist/src/block/worker-calls.js')).href
  writeFileSync(
    script,
    `import { serveCalls } from ${JSON.stringify(calls)}
serveCalls({ count: async (to, tell) => { for (let n = 1; n <= to; n++) tell(n); return 'done' } })
`,
  )
  const worker = new WorkerCalls(pathToFileURL(script))
  t.teardown(() => worker.close())
  const told: unknown[] = []
  const answers = [worker.call('count', 3, (progress) => told.push(progress)), worker.call('count', 2)]
  t.same(await Promise.all(answers), ['done', 'done'])
  t.same(told, [1, 2, 3])
})

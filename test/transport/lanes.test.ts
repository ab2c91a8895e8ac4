import t from 'tap'
import { withRetry } from '../../src/transport/backoff.js'
import { transferFault } from '../../src/transport/faults.js'
import { Lanes } from '../../src/transport/lanes.js'

const never = new AbortController().signal
const limits = { attempts: 3, firstBackoffMs: 1, lastBackoffMs: 2 }

await t.test('never more than the limit run at once, and one for each key', async (t) => {
  const lanes = new Lanes(3)
  const running: string[] = []
  const keys = Array.from({ length: 60 }, (_, index) => `k${index % 5}`)
  await Promise.all(
    keys.map((key) =>
      lanes.run(key, never, async () => {
        if (running.length >= 3 || running.includes(key)) t.fail(`${key} ran beside ${running}`)
        running.push(key)
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 3))
        running.splice(running.indexOf(key), 1)
      }),
    ),
  )
  t.same(running, [])
})

await t.test('a failure or an abort while waiting frees the place', async (t) => {
  const lanes = new Lanes(1)
  await t.rejects(
    lanes.run('a', never, () => Promise.reject(new Error('no'))),
    { message: 'no' },
  )
  const abort = new AbortController()
  let finish: () => void = () => undefined
  const first = lanes.run('a', never, () => new Promise<void>((resolve) => (finish = resolve)))
  const second = lanes.run('a', abort.signal, async () => t.fail('an aborted call ran'))
  const third = lanes.run(undefined, never, async () => 'third')
  abort.abort()
  await t.rejects(second, { name: 'AbortError' })
  finish()
  await first
  t.equal(await third, 'third')
})

await t.test('only faults of the way are tried again, and not for ever', async (t) => {
  const count = async (code: 'LINK_DOWN' | 'LOGIN_DENIED', progressAt = 0): Promise<number> => {
    let tries = 0
    const work = async (progress: () => void): Promise<never> => {
      if (++tries === progressAt) progress()
      throw transferFault(code, 'put', 'x')
    }
    await t.rejects(withRetry(limits, never, work), { code })
    return tries
  }
  t.equal(await count('LOGIN_DENIED'), 1)
  t.equal(await count('LINK_DOWN'), 3)
  t.equal(await count('LINK_DOWN', 3), 5)
})

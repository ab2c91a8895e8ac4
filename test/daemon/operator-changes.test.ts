import t from 'tap'
import { OperatorChanges } from '../../src/daemon/operator-changes.js'

await t.test('a change behind one that does not end is refused, and never made', async (t) => {
  const changes = new OperatorChanges(50)
  const made: string[] = []
  let end = (): void => undefined
  const first = changes.run(() => new Promise<void>((resolve) => (end = resolve)))
  const note = async (name: string): Promise<string> => {
    made.push(name)
    return name
  }
  await t.rejects(
    changes.run(() => note('second')),
    { code: 'AGENT_BUSY', retry: 'later' },
  )
  end()
  await first
  t.equal(await changes.run(() => note('third')), 'third')
  t.same(made, ['third'])
})

await t.test('one that fails does not stop the next', async (t) => {
  const changes = new OperatorChanges()
  const failing = changes.run(() => Promise.reject(new Error('it fails')))
  const next = changes.run(async () => 'next')
  await t.rejects(failing, { message: 'it fails' })
  t.equal(await next, 'next')
})

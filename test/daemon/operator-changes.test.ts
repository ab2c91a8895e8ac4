import t from 'tap'
import { OperatorChanges, StreamChanges } from '../../src/daemon/operator-changes.js'

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

/** One that a disk holds up, until it is let go. */
function heldUp(): { readonly action: () => Promise<void>; readonly letGo: () => void } {
  let letGo = (): void => undefined
  const ended = new Promise<void>((resolve) => {
    letGo = resolve
  })
  return { action: () => ended, letGo }
}

await t.test('one that a disk may hold up is answered, goes on, and lets others have their turn', async (t) => {
  const changes = new OperatorChanges(50)
  const { action, letGo } = heldUp()
  let ended = false
  const first = changes.runBounded(async () => {
    await action()
    ended = true
  })
  await t.rejects(first, { code: 'CHANGE_PENDING', retry: 'later' })
  t.equal(await changes.run(async () => 'next'), 'next')
  t.notOk(ended)
  letGo()
  await action()
  t.ok(ended)
})

await t.test(
  'of one stream the next waits until the one before has ended, answered or not; of another it does not',
  async (t) => {
    const changes = new StreamChanges(50)
    const { action, letGo } = heldUp()
    await t.rejects(changes.run('held', action), { code: 'CHANGE_PENDING', retry: 'later' })
    const made: string[] = []
    const note = async (name: string): Promise<string> => {
      made.push(name)
      return name
    }
    await t.rejects(
      changes.run('held', () => note('refused')),
      { code: 'AGENT_BUSY', retry: 'later' },
    )
    t.equal(await changes.run('other', () => note('other')), 'other')
    const waits = changes.run('held', () => note('waits'))
    letGo()
    t.equal(await waits, 'waits')
    t.same(made, ['other', 'waits'])
  },
)

await t.test('of one stream one that fails does not stop the next', async (t) => {
  const changes = new StreamChanges()
  const failing = changes.run('one', () => Promise.reject(new Error('it fails')))
  const next = changes.run('one', async () => 'next')
  await t.rejects(failing, { message: 'it fails' })
  t.equal(await next, 'next')
})

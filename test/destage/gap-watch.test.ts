import t from 'tap'
import { GapWatch } from '../../src/destage/gap-watch.js'

function watched() {
  const clock = { nowMs: 0 }
  const told: string[] = []
  const watch = new GapWatch({ now: () => clock.nowMs, say: (_, code, text) => void told.push(`${code} ${text}`) })
  /** What is told when this is missing after so many seconds. */
  const at = (seconds: number, place: string | undefined, isOpen = place !== undefined): string[] => {
    clock.nowMs = seconds * 1000
    watch.note(isOpen, place)
    return told.splice(0).map((text) => text.split(' has not arrived')[0]!)
  }
  return { watch, at }
}

t.test('a gap that passes is told to nobody', async (t) => {
  const { watch, at } = watched()
  for (let seconds = 0; seconds < 300; seconds += 59) t.same(at(seconds, `epoch ${seconds}`), [])
  t.ok(watch.isOpen)
  t.ok(watch.isLasting, 'but asked for: something has been missing all the time')
  t.same(at(300, undefined), [])
  t.notOk(watch.isOpen)
  t.notOk(watch.isLasting)
})

t.test('one that stays is told once after a minute, and once when it is closed or another one follows', async (t) => {
  const { at } = watched()
  t.same(at(10, 'epoch 2'), [])
  t.same(at(69, 'epoch 2'), [])
  t.same(at(70, 'epoch 2'), ['SEQUENCE_GAP epoch 2'])
  t.same(at(7000, 'epoch 2'), [])
  t.same(at(7001, 'epoch 4'), ['SEQUENCE_GAP_CLOSED epoch 2 is not missing any more'])
  t.same(at(7060, 'epoch 4'), [])
  t.same(at(7061, 'epoch 4'), ['SEQUENCE_GAP epoch 4'])
  t.same(at(7062, undefined), ['SEQUENCE_GAP_CLOSED epoch 4 is not missing any more'])
  t.same(at(9000, undefined), [])
})

t.test('what waits for something that was told otherwise is asked for, and not told', async (t) => {
  const { watch, at } = watched()
  t.same(at(0, undefined, true), [])
  t.same(at(500, undefined, true), [])
  t.ok(watch.isLasting)
})

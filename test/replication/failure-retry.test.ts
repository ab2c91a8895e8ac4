import { AssertionError } from 'node:assert'
import t from 'tap'
import type { ReportEvent } from '../../src/block/event-log.js'
import { StorageError } from '../../src/block/storage-error.js'
import { FailureRetry } from '../../src/replication/failure-retry.js'
import { StreamHealth } from '../../src/replication/stream-health.js'

const fault = new StorageError('SOME_FAULT', { op: 'read', object: 'journal', hint: 'Do this.' })

/** A stream that fails as long as it is told to, and a clock that goes when it is told to. */
function rig() {
  let nowMs = 0
  let due: { atMs: number; action: () => void }[] = []
  const events: string[] = []
  const attemptsMs: number[] = []
  let failing: unknown = fault
  const retry: FailureRetry = new FailureRetry({
    async attempt() {
      attemptsMs.push(nowMs)
      health.failure = undefined
      if (failing) health.noteFailure(failing)
    },
    onWorks: () => health.noteWorks(),
    now: () => nowMs,
    later(action, delayMs) {
      const entry = { atMs: nowMs + delayMs, action }
      due.push(entry)
      return () => {
        due = due.filter((other) => other !== entry)
      }
    },
  })
  const health = new StreamHealth('erp', ({ code }: Parameters<ReportEvent>[0]) => events.push(code), retry)
  return {
    ...{ retry, health, events, attemptsMs },
    get waiting() {
      return due.length
    },
    fails(error: unknown) {
      failing = error
    },
    /** Whatever is due until then happens, in its order. */
    async goOn(untilMs: number) {
      for (;;) {
        const next = due.sort((a, b) => a.atMs - b.atMs)[0]
        if (!next || next.atMs > untilMs) break
        due.shift()
        nowMs = next.atMs
        next.action()
        await new Promise(setImmediate)
      }
      nowMs = untilMs
    },
  }
}

t.test('what failed is tried after 10 s, then after twice as long each time, up to 5 min', async (t) => {
  const { health, attemptsMs, goOn } = rig()
  health.noteFailure(fault)
  t.equal(health.retryInSeconds, 10)
  await goOn(4_000)
  t.equal(health.retryInSeconds, 6)
  await goOn(1_510_000)
  const seconds = attemptsMs.map((atMs) => atMs / 1000)
  t.strictSame(seconds, [10, 30, 70, 150, 310, 610, 910, 1210, 1510])
  t.match(health.failure, /SOME_FAULT/)
})

t.test('events tell of a failure once, of another one, and once that it works', async (t) => {
  const stream = rig()
  const { health, events, goOn } = stream
  health.noteFailure(fault)
  await goOn(75_000)
  t.strictSame(events, ['STREAM_FAILED'], 'three attempts later')
  stream.fails(new TypeError('another'))
  await goOn(151_000)
  t.strictSame(events, ['STREAM_FAILED', 'STREAM_FAILED'])
  stream.fails(undefined)
  await goOn(315_000)
  t.equal(health.failure, undefined)
  t.equal(events.length, 2, 'it may fail again in a moment')
  await goOn(321_000)
  t.strictSame(events.slice(2), ['STREAM_WORKS_AGAIN'])
  t.equal(stream.waiting, 0, 'nothing goes on for a stream that works')
  t.equal(health.retryInSeconds, null)
  health.noteFailure(fault)
  t.equal(events.length, 4, 'what fails then is told of again')
})

t.test('a broken invariant is not tried again by itself', async (t) => {
  const { health, events, attemptsMs, goOn } = rig()
  health.noteFailure(fault)
  health.noteFailure(new AssertionError({ message: 'two epochs of one number' }))
  t.equal(health.retryInSeconds, null)
  await goOn(3_600_000)
  t.strictSame(attemptsMs, [])
  t.strictSame(events, ['STREAM_FAILED', 'STREAM_FAILED'])
})

t.test('an attempt is called off by a new generation, and none begins once the stream has ended', async (t) => {
  const stream = rig()
  const { health, retry, attemptsMs, goOn } = stream
  health.noteFailure(fault)
  health.reset()
  await goOn(60_000)
  t.strictSame(attemptsMs, [])
  health.noteFailure(fault)
  retry.cancel()
  t.equal(stream.waiting, 0)
  health.noteFailure(fault)
  retry.close()
  health.noteFailure(fault)
  await goOn(3_600_000)
  t.strictSame(attemptsMs, [])
  t.ok(retry.closed)
})

t.test('an attempt that throws what nobody noted is followed by another', async (t) => {
  const stream = rig()
  const { health, attemptsMs, goOn } = stream
  let thrown = 0
  const { retry } = stream
  health.noteFailure(fault)
  Object.defineProperty(health, 'noteFailure', {
    value: () => {
      thrown += 1
      throw new Error('not noted')
    },
  })
  await goOn(31_000)
  t.strictSame(attemptsMs, [10_000, 30_000])
  t.equal(thrown, 2)
  t.equal(retry.inSeconds, 39)
})

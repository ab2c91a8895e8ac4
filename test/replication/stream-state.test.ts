import t from 'tap'
import { type CutEpoch, StreamState } from '../../src/replication/stream-state.js'
import { MemoryStore } from '../fixtures/memory-store.js'

const hourMs = 3_600_000
const cut = (epoch: number, oldestMs: number): CutEpoch => ({ epoch, oldestMs, endLsn: '1', parts: [], rawBytes: 1 })

/** A site's two clocks: `pass` is time, `jump` is somebody who sets the wall clock. */
class Site {
  wallMs = Date.UTC(2026, 0, 1)
  steadyMs = 5_000
  readonly store = new MemoryStore()
  state = this.#begin()

  #begin(): StreamState {
    return new StreamState(this.store, 's', { wallMs: () => this.wallMs, steadyMs: () => this.steadyMs })
  }

  pass(ms: number): void {
    this.wallMs += ms
    this.steadyMs += ms
  }

  jump(ms: number): void {
    this.wallMs += ms
  }

  restart(): void {
    this.steadyMs = 100
    this.state = this.#begin()
  }

  get ageMs(): number {
    return this.steadyMs - this.state.oldestUnsentMs
  }
}

t.test('the age of what is not sent does not go by the wall clock', async (t) => {
  for (const jumpMs of [0, hourMs, -hourMs, -Date.UTC(2026, 0, 1), 30 * 365 * 24 * hourMs]) {
    const site = new Site()
    const sinceMs = site.steadyMs
    site.pass(1_000)
    site.jump(jumpMs)
    await site.state.commitEpoch(cut(1, site.wallMs - 1_000 - jumpMs), { cutEpoch: 1 }, sinceMs)
    site.pass(2_000)
    await site.state.commitEpoch(cut(2, site.wallMs), { cutEpoch: 2 }, site.steadyMs)
    site.pass(500)
    t.equal(site.ageMs, 3_500, `${jumpMs}`)
    await site.state.move({ sentEpoch: 1 })
    t.equal(site.ageMs, 500, 'of the next one')
    await site.state.forgetEpochs([1])
    await site.state.move({ sentEpoch: 2 })
    t.equal(site.state.oldestUnsentMs, Number.POSITIVE_INFINITY)
  }
})

t.test('of an epoch from before a restart the wall clock is asked once', async (t) => {
  for (const [jumpMs, ageMs] of [
    [0, 4_000],
    [hourMs, hourMs + 4_000],
    [-hourMs, 0],
  ] as const) {
    const site = new Site()
    await site.state.commitEpoch(cut(1, site.wallMs), { cutEpoch: 1 }, site.steadyMs)
    site.pass(4_000)
    site.jump(jumpMs)
    site.restart()
    t.equal(site.ageMs, ageMs, `${jumpMs}`)
    site.jump(-2 * hourMs)
    site.pass(1_000)
    t.equal(site.ageMs, ageMs + 1_000, 'what jumps later changes nothing')
  }
})

t.test('an epoch of writes that nobody saw being made is as old as its journal says', async (t) => {
  const site = new Site()
  await site.state.commitEpoch(cut(1, site.wallMs - 7_000), { cutEpoch: 1 })
  t.equal(site.ageMs, 7_000)
})

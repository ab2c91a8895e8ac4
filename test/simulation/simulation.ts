import assert from 'node:assert/strict'
import { MiB } from '../../src/block/units.js'
import { Random } from '../pool/model/random.js'
import { FarSide, type SimulatedAcknowledgement, type SimulatedPart } from './far-side.js'
import { NearSide } from './near-side.js'
import { type Rules, rules } from './rules.js'

const volumeCount = 2
const blocksPerVolume = 16
/** Steps in which nothing is broken any more: both sides must be equal then. */
const calmSteps = 4000
const networkLimit = 4096

export interface SimulationFigures {
  readonly steps: number
  readonly epochs: number
  readonly generations: number
  readonly statesJudged: number
  readonly letGoes: number
  /** How often what was shown was given up half applied. */
  readonly tornGenerations: number
}

/**
 * One stream with both its sides and the network between them, in virtual time, every choice made by the seed: the same
 * seed is the same run. Whatever is shown at the far side after any step is the source as it was at the end of the epoch.
 *
 * @param by other than the program's, to see them found out
 * @throws Error that names seed, step and what does not hold
 */
export async function simulate(seed: number, steps: number, by: Rules = rules): Promise<SimulationFigures> {
  const run = new Simulation(seed, by)
  try {
    for (; run.step < steps; run.step += 1) await run.any()
    await run.calm()
  } catch (error) {
    throw new Error(`seed ${seed}, step ${run.step}: ${error instanceof Error ? error.stack : String(error)}`)
  }
  return run.figures
}

class Simulation {
  step = 0
  readonly #random: Random
  readonly #near: NearSide
  readonly #far: FarSide
  #nowMs = 0
  #files: SimulatedPart[] = []
  #messages: SimulatedAcknowledgement[] = []
  #judged = 0
  #seen = { generation: 0, endLsn: 0 }
  /** Moods: for a while something is likely or impossible. */
  #mood = { network: 1, loss: 0.05, writes: 1, crashes: 0.02, refusals: 0 }

  constructor(seed: number, by: Rules) {
    this.#random = new Random(seed)
    const bufferLimitBytes = this.#random.pick([4, 24, 96, 1000]) * MiB
    this.#near = new NearSide(this.#random, by, volumeCount, blocksPerVolume, bufferLimitBytes)
    this.#far = new FarSide(volumeCount * blocksPerVolume, this.#random, by)
    for (let count = this.#random.below(30); count > 0; count -= 1) this.#near.write()
    this.#near.initialize()
  }

  get figures(): SimulationFigures {
    return {
      ...{ steps: this.step, epochs: this.#far.applied, generations: this.#near.position.generation },
      ...{ statesJudged: this.#judged, letGoes: this.#near.letGoes },
      tornGenerations: this.#far.tornGenerations,
    }
  }

  async any(): Promise<void> {
    const random = this.#random
    if (random.chance(0.002)) this.#changeMood()
    const { network, writes, crashes, refusals } = this.#mood
    const crash = random.chance(crashes)
    // Where a copy lags behind hosts: what it reads ahead is the most then.
    const bursts = this.#near.position.copy ? 3 : 0.1
    const action = random.weighted({
      ...{ write: 30 * writes, burst: bursts * writes, clock: 20, cut: 20, send: 15 * network, deliver: 25 * network },
      ...{ destage: 20, acknowledge: 8, hear: 10 * network, flush: 1 },
      ...{ hold: 0.5, endHold: 1.5, initialize: 0.03, look: 0.5 },
    })
    if (action === 'write') this.#near.write()
    else if (action === 'burst') this.#burst()
    else if (action === 'clock') this.#nowMs += random.pick([1, 20, 300, 1000, 20_000])
    else if (action === 'cut') {
      await this.#near.turn(this.#nowMs, crash)
      if (crash) this.#near.crash(this.#nowMs)
    } else if (action === 'send') this.#send()
    else if (action === 'deliver') this.#deliver()
    else if (action === 'destage') this.#far.turn(crash ? 'crash' : random.chance(refusals) ? 'refusal' : 'end')
    else if (action === 'acknowledge') this.#messages.push(this.#far.acknowledge())
    else if (action === 'hear') this.#hear()
    else if (action === 'flush') this.#near.flush()
    else if (action === 'hold' && !this.#near.isHeld) this.#near.hold()
    else if (action === 'endHold' && this.#near.isHeld) this.#near.endHold()
    else if (action === 'initialize') this.#near.initialize()
    else if (action === 'look') this.#lookForLost()
    this.#judge()
  }

  /** Nothing breaks any more; everything that was begun is brought to its end. */
  async calm(): Promise<void> {
    const { position } = this.#near
    if (this.#near.isHeld) this.#near.endHold()
    this.#near.flush()
    const isEqual = (): boolean => {
      const { appliedEpoch, generation, endLsn, intent, consistent } = this.#far.position
      const { cutEpoch, generation: near } = this.#near.position
      return generation === near && consistent && intent === 0 && appliedEpoch === cutEpoch && endLsn === this.#near.lsn
    }
    for (let step = 0; step < calmSteps && !isEqual(); step += 1) {
      this.#nowMs += 1000
      await this.#near.turn(this.#nowMs, false)
      for (const part of this.#near.nextToSend()) this.#files.push(part)
      this.#near.sent(this.#near.nextToSend()[0]?.epoch ?? 0)
      for (const file of this.#files.splice(0)) this.#far.arrive(file)
      this.#far.turn('end')
      for (const part of this.#near.take(this.#far.acknowledge())) this.#files.push(part)
      if (step % 20 === 19) this.#lookForLost()
      this.#judge()
    }
    assert(isEqual(), `no end: ${JSON.stringify({ near: this.#near.position, far: this.#far.position, position })}`)
    const { shown } = this.#far
    assert(shown)
    assert(isSame(shown.image, this.#near.history.at(-1)!), 'the end is equal')
  }

  /** More than one epoch takes of the journal. */
  #burst(): void {
    for (let count = this.#random.between(40, 160); count > 0; count -= 1) this.#near.write()
  }

  #changeMood(): void {
    const random = this.#random
    this.#mood = {
      network: random.pick([0, 0.1, 1, 3]),
      loss: random.pick([0, 0.05, 0.4]),
      writes: random.pick([0, 0.2, 1, 4]),
      crashes: random.pick([0, 0.02, 0.3]),
      refusals: random.pick([0, 0.02, 0.9]),
    }
  }

  #send(): void {
    const parts = this.#near.nextToSend()
    const [first] = parts
    if (!first || this.#files.length >= networkLimit) return
    for (const part of parts) {
      if (this.#random.chance(this.#mood.loss)) continue
      this.#files.push(part)
    }
    this.#near.sent(first.epoch)
  }

  /** Any file that is under way, and sometimes it stays under way too. */
  #deliver(): void {
    if (this.#files.length === 0) return
    const at = this.#random.chance(0.7) ? 0 : this.#random.below(this.#files.length)
    const file = this.#files[at]!
    if (!this.#random.chance(0.1)) this.#files.splice(at, 1)
    this.#far.arrive(file)
  }

  #hear(): void {
    if (this.#messages.length === 0) return
    // The share shows the newest one, or one it has kept.
    const message = this.#random.chance(0.8) ? this.#messages.at(-1)! : this.#random.pick(this.#messages)
    this.#messages = this.#messages.slice(-20)
    for (const part of this.#near.take(message)) if (this.#files.length < networkLimit) this.#files.push(part)
  }

  /** The source sends again what was sent, is not applied and is not there any more. */
  #lookForLost(): void {
    const { appliedEpoch, sentEpoch } = this.#near.position
    if (sentEpoch <= appliedEpoch) return
    for (const epoch of new Set([appliedEpoch + 1, sentEpoch])) {
      for (const part of this.#near.parts(epoch)) if (!this.#files.includes(part)) this.#files.push(part)
    }
  }

  #judge(): void {
    const near = this.#near.position
    const far = this.#far.position
    assert(near.sentEpoch <= near.cutEpoch && near.appliedEpoch <= near.sentEpoch)
    if (far.generation === near.generation) {
      assert(near.appliedEpoch <= far.appliedEpoch, 'nothing is taken for applied that is not')
      assert(far.appliedEpoch <= near.cutEpoch, 'nothing is applied that was not committed')
    }
    const { shown } = this.#far
    if (!shown) return
    const { generation, endLsn } = shown
    assert(generation > this.#seen.generation || endLsn >= this.#seen.endLsn, 'never back in time')
    if (generation !== this.#seen.generation || endLsn !== this.#seen.endLsn) this.#judged += 1
    this.#seen = { generation, endLsn }
    // Also when it is one that was seen before: what is applied meanwhile must not show.
    assert(isSame(shown.image, this.#near.history[endLsn]!), `what is shown is the source at LSN ${endLsn}`)
  }
}

function isSame(one: Int32Array, other: Int32Array): boolean {
  return one.every((value, at) => value === other[at])
}

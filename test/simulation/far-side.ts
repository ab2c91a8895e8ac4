import assert from 'node:assert/strict'
import type { BatchLimits, HeldPart, SequencePosition } from '../../src/destage/sequencer.js'
import type { Random } from '../pool/model/random.js'
import type { Rules } from './rules.js'

/** A replication file: where it belongs, and which values it brings to which blocks. */
export interface SimulatedPart extends Omit<HeldPart, 'name'> {
  readonly name: string
  /** LSN at which the epoch ends. */
  readonly endLsn: number
  readonly changes: readonly (readonly [block: number, value: number])[]
}

export interface SimulatedAcknowledgement {
  readonly sequence: number
  readonly generation: number
  readonly appliedEpoch: number
  readonly wanted: readonly { readonly epoch: number; readonly part: number }[]
}

/** What survives a crash of the destination. */
export interface FarPosition extends SequencePosition {
  readonly intent: number
  /** What is shown was given up half applied. */
  readonly torn: boolean
  readonly endLsn: number
  readonly sequence: number
}

/** The destination's planner over an image in memory, with crashes between any two of its steps. */
export class FarSide {
  /** Survives a crash. */
  #at: FarPosition = {
    generation: 0,
    appliedEpoch: 0,
    consistent: false,
    intent: 0,
    torn: false,
    endLsn: 0,
    sequence: 0,
  }
  readonly #files = new Map<string, SimulatedPart>()
  /** The image of the generation being applied; while it is not consistent the one before is shown. */
  #image: Int32Array
  #shown: { image: Int32Array; endLsn: number; generation: number } | undefined
  #missing: readonly { readonly epoch: number; readonly part: number }[] = []
  readonly #random: Random
  /** The disk refused the last write. Forgotten by a crash. */
  #isObstructed = false
  readonly #rules: Rules
  applied = 0
  tornGenerations = 0

  constructor(blockCount: number, random: Random, rules: Rules) {
    this.#random = random
    this.#rules = rules
    this.#image = new Int32Array(blockCount)
  }

  get position(): FarPosition {
    return this.#at
  }

  /** What a reader may take for a state of the source now; undefined while none is shown. */
  get shown(): { readonly image: Int32Array; readonly endLsn: number; readonly generation: number } | undefined {
    const { consistent, intent, torn, generation, endLsn } = this.#at
    if (torn || (intent > 0 && consistent)) return undefined
    return consistent ? { image: this.#image, endLsn, generation } : this.#shown
  }

  /** A whole file has arrived; damaged ones never come so far. */
  arrive(part: SimulatedPart): void {
    const { generation, appliedEpoch } = this.#at
    if (part.generation < generation || (part.generation === generation && part.epoch <= appliedEpoch)) return
    this.#files.set(part.name, part)
  }

  /** One turn, to its end, or up to any of its steps: there the agent is killed, or the disk refuses a write. */
  turn(until: 'end' | 'crash' | 'refusal'): void {
    const crash = until === 'crash'
    const wasObstructed = this.#isObstructed
    this.#isObstructed = false
    const limits = { epochs: 1 + this.#random.below(16), rawBytes: this.#random.pick([1, 8 << 20, 64 << 20]) }
    const plan = this.#rules.planSequence(this.#at, this.#candidates(limits, wasObstructed), limits)
    for (const { name } of plan.obsolete) this.#files.delete(name)
    this.#missing = plan.missing
    const [first] = plan.apply
    if (!first) return
    if (plan.generation > this.#at.generation) {
      assert.equal(first[0]!.epoch, 1, 'a generation begins at its first epoch')
      if (this.#at.consistent)
        this.#shown = { image: this.#image, endLsn: this.#at.endLsn, generation: this.#at.generation }
      this.#image = this.#rules.nextImage(this.#image)
      const torn = this.#at.torn || (this.#at.consistent && this.#at.intent > this.#at.appliedEpoch)
      if (torn && !this.#at.torn) this.tornGenerations += 1
      this.#at = {
        ...this.#at,
        generation: plan.generation,
        appliedEpoch: 0,
        consistent: false,
        intent: 0,
        torn,
        endLsn: 0,
      }
      if (crash && this.#random.chance(0.3)) return
    }
    const { appliedEpoch, consistent } = this.#at
    const last = appliedEpoch + plan.apply.length
    const intent = Math.max(last, this.#at.intent)
    this.#at = { ...this.#at, intent }
    let steps = until === 'end' ? Number.POSITIVE_INFINITY : this.#random.below(crash ? 8 : 3)
    plan.apply.forEach((parts, index) => {
      this.#check(parts as readonly SimulatedPart[], appliedEpoch + 1 + index)
      for (const { name } of parts) {
        // In any order up to here: folded records depend on nothing in the image.
        for (const [block, value] of this.#files.get(name)!.changes) {
          if (--steps < 0) return
          this.#image[block] = value
        }
      }
    })
    if (steps < 0) {
      this.#isObstructed = !crash
      return
    }
    const end = plan.apply.at(-1)! as readonly SimulatedPart[]
    const { initializing, endLsn } = end.at(-1)!
    if (consistent) assert(!initializing, 'where a state is shown, a batch ends with one')
    this.#at = {
      ...this.#at,
      ...{ appliedEpoch: last, endLsn, consistent: consistent || !initializing, intent: last < intent ? intent : 0 },
      torn: this.#at.torn && initializing,
    }
    this.applied += plan.apply.length
    if (crash && this.#random.chance(0.5)) return
    for (const { name } of plan.apply.flat()) this.#files.delete(name)
  }

  acknowledge(): SimulatedAcknowledgement {
    this.#at = { ...this.#at, sequence: this.#at.sequence + 1 }
    const newest = [...this.#files.values()].reduce(
      (far, { generation }) => Math.max(far, generation),
      this.#at.generation,
    )
    const begun = newest === this.#at.generation
    return {
      sequence: this.#at.sequence,
      generation: newest,
      appliedEpoch: begun ? this.#rules.acknowledged(this.#at) : 0,
      wanted: this.#missing,
    }
  }

  #candidates(limits: BatchLimits, isObstructed: boolean): SimulatedPart[] {
    const { generation, appliedEpoch, intent } = this.#at
    const all = [...this.#files.values()]
    if (intent <= appliedEpoch || isObstructed) return all
    const current = all.filter((part) => part.generation === generation)
    return this.#rules.planSequence(this.#at, current, limits).apply.length > 0 ? current : all
  }

  #check(parts: readonly SimulatedPart[], epoch: number): void {
    const [first] = parts
    assert(first && parts.length === first.partCount, 'an epoch is whole')
    parts.forEach((part, index) => {
      assert.equal(part.part, index)
      assert.equal(part.epoch, epoch, 'epochs go in order')
      assert.equal(part.generation, this.#at.generation)
    })
  }
}

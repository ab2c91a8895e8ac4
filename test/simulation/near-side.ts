import assert from 'node:assert/strict'
import { MiB } from '../../src/block/units.js'
import { EPOCH_JOURNAL_LIMIT } from '../../src/replication/pack-job.js'
import { newPosition, type StreamPosition } from '../../src/replication/stream-state.js'
import type { Random } from '../pool/model/random.js'
import type { SimulatedAcknowledgement, SimulatedPart } from './far-side.js'
import type { Rules } from './rules.js'

/** So large that a volume takes several epochs to copy. */
export const blockBytes = 4 * MiB
const recordBytes = MiB
const epochMs = 1000
/** A hold that nobody takes up after a crash ends. */
const adoptMs = 60_000

/**
 * The source's planners over a volume in memory and a journal that is a list: record n ends at LSN n.
 *
 * What it does between the planners is what epoch-cutter.ts and epoch-hold.ts do, step by step.
 */
export class NearSide {
  readonly volumes: readonly Int32Array[]
  readonly blockCount: number
  /** The whole content after record n, from 0 on. */
  readonly history: Int32Array[]
  readonly #journal: (readonly [block: number, value: number])[] = []
  readonly #random: Random
  readonly #rules: Rules
  readonly #bufferLimitBytes: number
  readonly #epochs = new Map<number, SimulatedPart[]>()
  #position: StreamPosition = newPosition
  #openSinceMs: number | null = null
  #flushTarget = 0
  #holders = 0
  #adoptAtMs: number | null = null
  #nextValue = 1
  letGoes = 0

  constructor(random: Random, rules: Rules, volumeCount: number, blocksPerVolume: number, bufferLimitBytes: number) {
    this.#random = random
    this.#rules = rules
    this.#bufferLimitBytes = bufferLimitBytes
    this.volumes = Array.from({ length: volumeCount }, () => new Int32Array(blocksPerVolume))
    this.blockCount = volumeCount * blocksPerVolume
    this.history = [new Int32Array(this.blockCount)]
  }

  get position(): StreamPosition {
    return this.#position
  }

  get lsn(): number {
    return this.#journal.length
  }

  get isHeld(): boolean {
    return this.#holders > 0
  }

  /** Parts of an epoch in the source buffer. */
  parts(epoch: number): readonly SimulatedPart[] {
    return this.#epochs.get(epoch) ?? []
  }

  write(): void {
    const block = this.#random.below(this.blockCount)
    const value = this.#nextValue++
    const perVolume = this.volumes[0]!.length
    this.volumes[Math.floor(block / perVolume)]![block % perVolume] = value
    this.#journal.push([block, value])
    const next = Int32Array.from(this.history.at(-1)!)
    next[block] = value
    this.history.push(next)
  }

  initialize(): void {
    const held = this.#holders > 0
    this.#epochs.clear()
    this.#openSinceMs = null
    this.#flushTarget = 0
    const { generation } = this.#position
    const copy = { slot: 0, offset: 0 }
    const lsn = `${this.lsn}`
    // The new journal begins here.
    this.#position = {
      ...newPosition,
      phase: 'running',
      generation: generation + 1,
      copy,
      held,
      cutLsn: lsn,
      copyEndLsn: '0',
    }
  }

  flush(): void {
    this.#flushTarget = this.lsn
  }

  hold(): void {
    this.#holders += 1
    this.#adoptAtMs = null
    if (this.#position.phase === 'running') this.#position = { ...this.#position, held: true }
  }

  endHold(): void {
    this.#holders -= 1
    if (this.#holders === 0) this.#release()
    this.flush()
  }

  /** The agent dies and comes back: what it had in memory is gone. */
  crash(nowMs: number): void {
    this.#holders = 0
    this.#openSinceMs = null
    this.#flushTarget = 0
    this.#adoptAtMs = this.#position.held ? nowMs + adoptMs : null
  }

  /** One look of the cutter. With `crash` the agent dies before the epoch is committed. */
  async turn(nowMs: number, crash: boolean): Promise<void> {
    if (this.#position.phase !== 'running') return
    if (this.#adoptAtMs !== null && nowMs >= this.#adoptAtMs) this.#release()
    const openBytes = (this.lsn - Number(this.#position.cutLsn)) * recordBytes
    if (openBytes <= 0) this.#openSinceMs = null
    else this.#openSinceMs ??= nowMs
    const decision = this.#rules.planCut({
      ...{ nowMs, openSinceMs: this.#openSinceMs, openBytes, epochMs },
      flushing: this.#flushTarget > Number(this.#position.cutLsn),
      ...{ bufferBytes: this.#bufferBytes, bufferLimitBytes: this.#bufferLimitBytes },
      ...{ journalLimitBytes: 8 * EPOCH_JOURNAL_LIMIT, position: this.#position },
    })
    if (decision === 'cut') await this.#cut(crash)
    if (decision === 'let-go') {
      this.letGoes += 1
      this.#position = { ...this.#position, held: false, copyEndLsn: this.#position.cutLsn }
    }
  }

  /** @returns parts to send again */
  take(message: SimulatedAcknowledgement): SimulatedPart[] {
    const { generation, acknowledgement, appliedEpoch, cutEpoch, sentEpoch } = this.#position
    if (message.generation !== generation || message.sequence <= acknowledgement) return []
    const moved = message.appliedEpoch > appliedEpoch && message.appliedEpoch <= cutEpoch
    this.#position = { ...this.#position, acknowledgement: message.sequence }
    if (moved) {
      const applied = message.appliedEpoch
      this.#position = { ...this.#position, appliedEpoch: applied, sentEpoch: Math.max(sentEpoch, applied) }
      for (const epoch of this.#epochs.keys()) if (epoch <= applied) this.#epochs.delete(epoch)
    }
    return message.wanted.flatMap(({ epoch, part }) => {
      const found = epoch <= this.#position.sentEpoch ? this.#epochs.get(epoch)?.[part] : undefined
      return found ? [found] : []
    })
  }

  /** The next epoch that was not sent. */
  nextToSend(): readonly SimulatedPart[] {
    const { sentEpoch, cutEpoch } = this.#position
    return sentEpoch < cutEpoch ? this.parts(sentEpoch + 1) : []
  }

  sent(epoch: number): void {
    this.#position = { ...this.#position, sentEpoch: Math.max(this.#position.sentEpoch, epoch) }
  }

  get #bufferBytes(): number {
    let bytes = 0
    for (const parts of this.#epochs.values()) for (const { rawBytes } of parts) bytes += rawBytes
    return bytes
  }

  async #cut(crash: boolean): Promise<void> {
    const { copy, held, copyEndLsn, cutEpoch, cutLsn, generation } = this.#position
    const from = Number(cutLsn)
    const to = this.lsn
    const plan = copy && this.#rules.planCopy(this.#copySources(), copy)
    // Hosts write on while the copy is read: it may hold more than the epoch.
    for (let count = this.#random.below(3); count > 0; count -= 1) this.write()
    const changes = new Map<number, number>()
    for (const { volume, offset, lengthBytes } of plan?.pieces ?? []) {
      for (let at = offset; at < offset + lengthBytes; at += blockBytes) {
        const onVolume = Math.floor(at / blockBytes)
        changes.set(volume * this.volumes[0]!.length + onVolume, this.volumes[volume]![onVolume]!)
      }
    }
    const endLsn = Math.min(to, from + EPOCH_JOURNAL_LIMIT / recordBytes)
    for (const [block, value] of this.#journal.slice(from, endLsn)) changes.set(block, value)
    const consistentFrom = copy || held ? null : Number(copyEndLsn)
    const initializing = consistentFrom === null || endLsn < consistentFrom
    if (crash) return
    const epoch = cutEpoch + 1
    this.#epochs.set(epoch, this.#split(generation, epoch, endLsn, initializing, [...changes]))
    for (let count = this.#random.below(3); count > 0; count -= 1) this.write()
    const nextCopy = plan ? plan.next : null
    const copied = copy !== null && nextCopy === null
    const { consistentEpoch, stateEpoch } = this.#position
    this.#position = {
      ...this.#position,
      ...{ cutEpoch: epoch, cutLsn: `${endLsn}`, copy: nextCopy },
      copyEndLsn: copied ? `${this.#rules.copyEnd(Number(copyEndLsn), this.lsn)}` : copyEndLsn,
      consistentEpoch: consistentEpoch === 0 && !initializing ? epoch : consistentEpoch,
      stateEpoch: initializing ? stateEpoch : epoch,
    }
    if (endLsn >= to) this.#openSinceMs = null
  }

  #split(
    generation: number,
    epoch: number,
    endLsn: number,
    initializing: boolean,
    changes: (readonly [number, number])[],
  ): SimulatedPart[] {
    const partCount = 1 + this.#random.below(3)
    const size = Math.ceil(changes.length / partCount)
    return Array.from({ length: partCount }, (_, part) => {
      const own = changes.slice(part * size, (part + 1) * size)
      const name = `g${generation}-e${epoch}-p${part}`
      const rawBytes = own.length * recordBytes
      return { generation, epoch, part, partCount, initializing, endLsn, rawBytes, name, changes: own }
    })
  }

  #copySources(): Parameters<Rules['planCopy']>[0] {
    return this.volumes.map((content, index) => ({
      index,
      path: '',
      sizeBytes: content.length * blockBytes,
      nextData: (offset) => {
        const from = Math.ceil(offset / blockBytes)
        const found = content.findIndex((value, at) => at >= from && value !== 0)
        return found < 0 ? undefined : found * blockBytes
      },
    }))
  }

  #release(): void {
    this.#adoptAtMs = null
    const { held, copyEndLsn } = this.#position
    if (!held) return
    assert(this.#position.phase === 'running')
    this.#position = { ...this.#position, held: false, copyEndLsn: `${Math.max(Number(copyEndLsn), this.lsn)}` }
  }
}

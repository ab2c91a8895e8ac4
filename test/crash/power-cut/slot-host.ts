import { execFile } from 'node:child_process'
import { readSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { promisify } from 'node:util'
import { KiB, sectorBytes } from '../../../src/block/units.js'
import { delay } from '../../fixtures/agent.js'
import type { Random } from '../../pool/model/random.js'

const run = promisify(execFile)

export const slotBytes = 64 * KiB

interface Asked {
  readonly slot: number
  /** Slots at once; only a trim has more than one. */
  readonly count: number
  readonly isTrim: boolean
}

/** One write or trim of a whole slot. Positions are those of the power-cut device. */
interface SlotChange {
  readonly value: number
  /** Nothing of it was asked for before. */
  readonly issuedAt: number
  /** A flush that began after its end was acknowledged by then. */
  flushedAt: number
}

/**
 * A host that writes through its page cache, trims, and flushes after some of both: what a file system does. Each slot is
 * full of the number of the change that wrote it; trimmed ones are zero.
 */
export class SlotHost {
  readonly #slots: SlotChange[][]
  readonly #offset: number
  #value = 0
  /** What the host does next, instead of what it draws. */
  #asked: { readonly changes: readonly Asked[]; readonly done: () => void } | undefined

  /** @param offset where its slots begin on the volume */
  constructor(offset: number, lengthBytes: number) {
    this.#offset = offset
    const made = (): SlotChange[] => [{ value: 0, issuedAt: 0, flushedAt: 0 }]
    this.#slots = Array.from({ length: lengthBytes / slotBytes }, made)
  }

  /** One slot in eight is written: what a copy reads then has no gap worth skipping. Flushed when it resolves. */
  fillSome(): Promise<void> {
    const slots = Array.from({ length: Math.ceil(this.#slots.length / 8) }, (_, at) => at * 8)
    return this.#ask(slots.map((slot) => ({ slot, count: 1, isTrim: false })))
  }

  /** All slots are trimmed at once. Flushed when it resolves. */
  trimAll(): Promise<void> {
    return this.#ask([{ slot: 0, count: this.#slots.length, isTrim: true }])
  }

  #ask(changes: readonly Asked[]): Promise<void> {
    return new Promise((done) => {
      this.#asked = { changes, done }
    })
  }

  /** Ends with the signal. @throws when the device refuses: from then on nothing counts as flushed */
  async run(device: string, positionFile: string, random: Random, stop: AbortSignal): Promise<void> {
    const host = await open(device, 'r+')
    const watch = await open(positionFile, 'r')
    const position = (): number => {
      const bytes = Buffer.alloc(8)
      readSync(watch.fd, bytes, 0, 8, 0)
      return Number(bytes.readBigUInt64LE())
    }
    try {
      while (!stop.aborted) {
        const asked = this.#asked
        this.#asked = undefined
        const changes: SlotChange[] = []
        for (const change of asked?.changes ?? this.#draw(random)) {
          if (stop.aborted) break
          changes.push(...(await this.#change(device, host, change, position)))
        }
        if (!asked && random.chance(0.3)) await delay(200)
        await host.datasync()
        const flushedAt = position()
        for (const change of changes) change.flushedAt = flushedAt
        asked?.done()
      }
    } finally {
      await watch.close()
      await host.close()
    }
  }

  #draw(random: Random): Asked[] {
    const one = (): Asked => ({ slot: random.below(this.#slots.length), count: 1, isTrim: random.chance(0.1) })
    return Array.from({ length: random.between(1, 12) }, one)
  }

  async #change(
    device: string,
    host: FileHandle,
    { slot, count, isTrim }: Asked,
    position: () => number,
  ): Promise<SlotChange[]> {
    const value = isTrim ? 0 : ++this.#value
    const issuedAt = position()
    const changes = this.#slots.slice(slot, slot + count).map((changes) => {
      const change = { value, issuedAt, flushedAt: Number.POSITIVE_INFINITY }
      changes.push(change)
      return change
    })
    const offset = this.#offset + slot * slotBytes
    const lengthBytes = count * slotBytes
    if (isTrim) await run('blkdiscard', ['--force', '--offset', `${offset}`, '--length', `${lengthBytes}`, device])
    else await host.write(filled(value), 0, slotBytes, offset)
    return changes
  }

  /** What is wrong with the volume after a cut here, in words; the first few. */
  judge(volume: Buffer, position: number, atomBytes: number): string[] {
    const wrong: string[] = []
    for (const [slot, changes] of this.#slots.entries()) {
      const allowed = allowedAt(changes, position)
      const at = this.#offset + slot * slotBytes
      if (isFilled(volume, at, slotBytes) && allowed.has(volume.readUInt32LE(at))) continue
      for (let done = 0; done < slotBytes && wrong.length < 5; done += atomBytes) {
        const value = volume.readUInt32LE(at + done)
        if (!isFilled(volume, at + done, atomBytes)) wrong.push(`offset ${at + done}: several writes, or none`)
        else if (!allowed.has(value))
          wrong.push(`offset ${at + done}: holds ${value}, may hold ${[...allowed].join(', ')}`)
      }
    }
    return wrong
  }
}

/** The last change that was flushed, and those after it that were asked for. */
function allowedAt(changes: readonly SlotChange[], position: number): Set<number> {
  const last = changes.findLastIndex(({ flushedAt }) => flushedAt <= position)
  return new Set(
    changes
      .slice(last)
      .filter(({ issuedAt }) => issuedAt <= position)
      .map(({ value }) => value),
  )
}

function filled(value: number): Buffer {
  const bytes = Buffer.alloc(slotBytes)
  for (let at = 0; at < slotBytes; at += 4) bytes.writeUInt32LE(value, at)
  return bytes
}

/** The same number from end to end. */
function isFilled(volume: Buffer, at: number, lengthBytes: number): boolean {
  return volume.compare(volume, at + 4, at + lengthBytes, at, at + lengthBytes - 4) === 0
}

/** A number for what each sector holds: of stamps the serial number, of slots the value. */
export function sectorIds(volume: Buffer): Uint32Array {
  const ids = new Uint32Array(volume.length / sectorBytes)
  for (let at = 0; at < ids.length; at++) ids[at] = volume.readUInt32LE(at * sectorBytes + 8)
  return ids
}

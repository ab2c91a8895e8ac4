import { execFile } from 'node:child_process'
import { readSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { promisify } from 'node:util'
import { KiB, sectorBytes } from '../../../src/block/units.js'
import { delay } from '../../fixtures/agent.js'
import type { Random } from '../../pool/model/random.js'

const run = promisify(execFile)

export const slotBytes = 64 * KiB

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

  /** @param offset where its slots begin on the volume */
  constructor(offset: number, lengthBytes: number) {
    this.#offset = offset
    const made = (): SlotChange[] => [{ value: 0, issuedAt: 0, flushedAt: 0 }]
    this.#slots = Array.from({ length: lengthBytes / slotBytes }, made)
  }

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
        const changes: SlotChange[] = []
        for (let left = random.between(1, 12); left > 0 && !stop.aborted; left--) {
          changes.push(await this.#change(device, host, random, position))
        }
        if (random.chance(0.3)) await delay(200)
        await host.datasync()
        const flushedAt = position()
        for (const change of changes) change.flushedAt = flushedAt
      }
    } finally {
      await watch.close()
      await host.close()
    }
  }

  async #change(device: string, host: FileHandle, random: Random, position: () => number): Promise<SlotChange> {
    const slot = random.below(this.#slots.length)
    const isTrim = random.chance(0.1)
    const value = isTrim ? 0 : ++this.#value
    const change = { value, issuedAt: position(), flushedAt: Number.POSITIVE_INFINITY }
    this.#slots[slot]!.push(change)
    const offset = this.#offset + slot * slotBytes
    if (isTrim) await run('blkdiscard', ['--force', '--offset', `${offset}`, '--length', `${slotBytes}`, device])
    else await host.write(filled(value, slotBytes), 0, slotBytes, offset)
    return change
  }

  /** What is wrong with the volume after a cut here, in words; the first few. */
  judge(volume: Buffer, position: number, atomBytes: number): string[] {
    const wrong: string[] = []
    for (const [slot, changes] of this.#slots.entries()) {
      const allowed = allowedAt(changes, position)
      const at = this.#offset + slot * slotBytes
      for (let done = 0; done < slotBytes && wrong.length < 5; done += atomBytes) {
        const atom = volume.subarray(at + done, at + done + atomBytes)
        const value = atom.readUInt32LE(0)
        if (!atom.equals(filled(value, atomBytes))) wrong.push(`offset ${at + done}: several writes, or none`)
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

const fills = new Map<number, Buffer>()

function filled(value: number, lengthBytes: number): Buffer {
  if (lengthBytes === slotBytes) {
    const bytes = Buffer.alloc(lengthBytes)
    for (let at = 0; at < lengthBytes; at += 4) bytes.writeUInt32LE(value, at)
    return bytes
  }
  let known = fills.get(value)
  if (known?.length !== lengthBytes) {
    if (fills.size > 10_000) fills.clear()
    known = filled(value, slotBytes).subarray(0, lengthBytes)
    fills.set(value, known)
  }
  return known
}

/** A number for what each sector holds: of stamps the serial number, of slots the value. */
export function sectorIds(volume: Buffer): Uint32Array {
  const ids = new Uint32Array(volume.length / sectorBytes)
  for (let at = 0; at < ids.length; at++) ids[at] = volume.readUInt32LE(at * sectorBytes + 8)
  return ids
}

import assert from 'node:assert/strict'
import { closeSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs'
import type { Random } from './model/random.js'

const pageBytes = 4096

/** Of what was not synced. */
export type Lost = 'everything' | 'some' | 'nothing'

/**
 * A file as a disk behind a page cache: what was written since the last sync may be lost page by page when the power goes.
 * It outlives the pools that write to it, as page cache does.
 */
export class FakeDisk {
  readonly path: string
  readonly #fd: number
  /** Content of unsynced pages as the disk has it. */
  readonly #onDisk = new Map<number, Buffer>()
  #closed = false

  constructor(path: string) {
    this.path = path
    this.#fd = openSync(path, 'r+')
  }

  /** An empty file that becomes so large when it is made a device. */
  static create(path: string): FakeDisk {
    writeFileSync(path, '')
    return new FakeDisk(path)
  }

  read(offset: number, length: number): Buffer {
    assert(!this.#closed, 'its descriptor may be another file by now')
    const bytes = Buffer.alloc(length)
    readSync(this.#fd, bytes, 0, length, offset)
    return bytes
  }

  write(offset: number, bytes: Uint8Array): void {
    for (let page = Math.floor(offset / pageBytes); page * pageBytes < offset + bytes.length; page += 1) {
      if (!this.#onDisk.has(page)) this.#onDisk.set(page, this.read(page * pageBytes, pageBytes))
    }
    writeSync(this.#fd, bytes, 0, bytes.length, offset)
  }

  sync(): void {
    this.#onDisk.clear()
  }

  /** Each page that was not synced is as before or as written last. */
  cutPower(random: Random, lost: Lost): void {
    for (const [page, before] of this.#onDisk) {
      const isLost = lost === 'some' ? random.chance(0.5) : lost === 'everything'
      if (isLost) writeSync(this.#fd, before, 0, pageBytes, page * pageBytes)
    }
    this.#onDisk.clear()
  }

  /** The file was copied: the copy's cache is as this one's. */
  copyTo(path: string): FakeDisk {
    const copy = new FakeDisk(path)
    for (const [page, bytes] of this.#onDisk) copy.#onDisk.set(page, bytes)
    return copy
  }

  close(): void {
    this.#closed = true
    closeSync(this.#fd)
  }
}

import { MiB } from '../block/units.js'
import { serveCalls } from '../block/worker-calls.js'
import type { ByteExtent } from '../pool/thin-pool.js'
import { Backing } from './backing.js'

export interface ImageCopyJob {
  /** Files served by front ends. */
  readonly from: string
  readonly to: string
  readonly extents: readonly ByteExtent[]
  /** Of the pool: what is zeros in this grain takes no space. */
  readonly blockBytes: number
}

const piece = Buffer.allocUnsafeSlow(MiB)
const zeros = Buffer.alloc(MiB)

/** Make the target as the source is in these extents. Not durable until sync(). */
function copy({ from, to, extents, blockBytes }: ImageCopyJob): void {
  const source = new Backing(from, 'read')
  try {
    const target = new Backing(to, 'write')
    try {
      for (const { offset, lengthBytes } of extents) {
        for (let done = 0; done < lengthBytes; done += piece.length) {
          const bytes = piece.subarray(0, Math.min(piece.length, lengthBytes - done))
          source.read(offset + done, bytes)
          put(target, offset + done, bytes, blockBytes)
        }
      }
    } finally {
      target.close()
    }
  } finally {
    source.close()
  }
}

/** Runs of blocks of one kind go in one call. */
function put(target: Backing, offset: number, bytes: Buffer, blockBytes: number): void {
  let start = 0
  while (start < bytes.length) {
    const zero = isZero(bytes, start, blockBytes)
    let end = start + blockBytes
    while (end < bytes.length && isZero(bytes, end, blockBytes) === zero) end += blockBytes
    end = Math.min(end, bytes.length)
    if (zero) target.zero(offset + start, end - start)
    else target.write(offset + start, bytes.subarray(start, end))
    start = end
  }
}

function isZero(bytes: Buffer, start: number, blockBytes: number): boolean {
  const end = Math.min(bytes.length, start + blockBytes)
  return bytes.compare(zeros, 0, end - start, start, end) === 0
}

/** What was copied is durable. */
function sync(path: string): void {
  const target = new Backing(path, 'write')
  try {
    target.sync()
  } finally {
    target.close()
  }
}

serveCalls({ copy, sync })

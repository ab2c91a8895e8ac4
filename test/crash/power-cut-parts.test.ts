/** Large parts go past the page cache into the source buffer: they are as durable as any, to the byte. */
import { createHash, randomFillSync } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ALIGNMENT_BYTES, alignedBuffer } from '../../src/block/aligned-buffer.js'
import { MiB } from '../../src/block/units.js'
import { PartWriting } from '../../src/replication/part-writing.js'
import { badDisk } from '../fixtures/bad-disk.js'
import { residentBytes } from '../fixtures/page-cache.js'
import { scratchFolder } from '../fixtures/paths.js'
import type { PowerCutDevice } from '../fixtures/power-cut.js'
import { newSeed, Random } from '../pool/model/random.js'

const diskBytes = 512 * MiB
const epochCount = 8
const largestBytes = 5 * MiB

interface WrittenEpoch {
  /** Of the disk, when its files were durable. */
  readonly position: number
  /** Names, and what they hold. */
  readonly files: ReadonlyMap<string, string>
}

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** As many small ones as large ones: those have other ways to the disk. */
async function writeEpoch(t: Test, disk: PowerCutDevice, epoch: number, random: Random): Promise<WrittenEpoch> {
  const writing = new PartWriting(disk.mountPoint)
  const files = new Map<string, string>()
  for (let part = 0; part < 3; part++) {
    const name = `${epoch}-${part}`
    // Of a length that ends anywhere, or on a block.
    const anyLength = part === 2 ? random.between(1, MiB - 1) : random.between(MiB, largestBytes)
    const length = epoch % 4 === 0 ? Math.ceil(anyLength / ALIGNMENT_BYTES) * ALIGNMENT_BYTES : anyLength
    const bytes = alignedBuffer(largestBytes).subarray(0, length)
    randomFillSync(bytes)
    files.set(name, digest(bytes))
    writing.begin(name, bytes, () => {})
  }
  await writing.durable()
  const position = await disk.position()
  if (epoch === 0) t.equal(residentBytes(join(disk.mountPoint, `${epoch}-0`)), 0, 'it went past the page cache')
  return { position, files }
}

/** @returns names of files that are missing or not what was written, of all epochs that were durable at that position */
async function lostBehind(
  disk: PowerCutDevice,
  epochs: readonly WrittenEpoch[],
  position: number,
  seed: number,
): Promise<string[]> {
  await disk.cut(position, seed, 512)
  await disk.mount()
  try {
    const there = new Set(readdirSync(disk.mountPoint))
    return epochs
      .filter((epoch) => epoch.position <= position)
      .flatMap(({ files }) => [...files])
      .filter(([name, content]) => !there.has(name) || digest(readFileSync(join(disk.mountPoint, name))) !== content)
      .map(([name]) => name)
  } finally {
    await disk.drop()
  }
}

for (const type of ['ext4', 'xfs'] as const) {
  t.test(`a power cut right behind an epoch leaves its files whole, on ${type}`, async (t) => {
    const seed = newSeed()
    const random = new Random(seed)
    t.comment(`seed ${seed}`)
    const disk = await badDisk(t, scratchFolder(t, 'power-cut-parts'), 'disk', diskBytes)
    await disk.format(type)
    await disk.mount()
    const from = await disk.position()
    const epochs: WrittenEpoch[] = []
    for (let epoch = 0; epoch < epochCount; epoch++) epochs.push(await writeEpoch(t, disk, epoch, random))
    await disk.drop()
    let cuts = 0
    for (const { position } of epochs) {
      for (const behind of [0, 0, 1]) {
        t.same(await lostBehind(disk, epochs, position + behind, random.next()), [], `at ${position} + ${behind}`)
        cuts++
      }
    }
    await disk.setFault('ignores-flush', random.next(), from)
    let found = 0
    for (const { position } of epochs) {
      // What it may not even mount any more is found out as well.
      const lost = await lostBehind(disk, epochs, position, random.next()).catch(() => ['the file system'])
      if (lost.length > 0) found++
    }
    t.ok(found > 0, `the judge is judged: ${found} of ${epochCount} cuts find out that flushes are ignored`)
    t.comment(JSON.stringify({ cuts, files: epochCount * 3 }))
  })
}

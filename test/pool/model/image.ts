/** Complete images: a copy of what a snapshot maps, then refreshes with what differs, and nothing else. */
import type { ByteExtent } from '../../../src/pool/thin-pool.js'
import { alignedBuffer } from './aligned.js'
import type { Bench } from './bench.js'
import { isNoSpace } from './open-file.js'
import type { Operations } from './operations.js'
import type { ModelVolume } from './shadow.js'
import { sectorBytes } from './stamps.js'
import { Mismatch, readSectors } from './verify.js'

const pieceSectors = 1024

/**
 * Make an image of some volume, or bring one up to date. Left incomplete when the pool is full.
 *
 * @param busy volumes that are written meanwhile: only images of them are made
 */
export async function refreshImage(
  bench: Bench,
  operations: Operations,
  busy: ReadonlySet<ModelVolume> = new Set(),
): Promise<void> {
  const { shadow, random } = bench
  const images = [...shadow.volumes.values()].filter(
    (volume) => !busy.has(volume) && shadow.volumes.get(volume.image?.volume ?? '')?.snapshots.has(volume.image!.base),
  )
  let image = images.length > 0 && random.chance(0.7) ? random.pick(images) : undefined
  const source = image ? shadow.volumes.get(image.image!.volume)! : operations.someVolume(({ image }) => !image)
  if (!source || source.snapshots.size > 6) return
  const base = shadow.newName('base')
  if (!(await operations.perform(operations.snapshot(source, base, { hidden: true })))) return
  const { content } = source.snapshots.get(base)!
  if (!image) {
    const name = shadow.newName('i')
    if (await operations.perform(operations.creation(name, content.sectors))) image = shadow.volumes.get(name)
    if (!image) {
      await operations.perform(operations.snapshotRemoval(source, base))
      return
    }
  }
  await bringUpToDate(bench, operations, source, image, base)
}

async function bringUpToDate(
  bench: Bench,
  operations: Operations,
  source: ModelVolume,
  image: ModelVolume,
  base: string,
): Promise<void> {
  const { child, shadow } = bench
  const { content } = source.snapshots.get(base)!
  const before = image.image
  if (image.content.sectors !== content.sectors) {
    await bench.close(image)
    await operations.perform(operations.resizing(image, content.sectors))
  }
  const whole: ByteExtent[] = [{ offset: 0, lengthBytes: content.sectors * sectorBytes }]
  let extents: ByteExtent[]
  if (before === null) extents = await child.pool('mapped', source.name, base)
  else if (!before.complete || before.own === null) extents = whole
  else {
    extents = await child.pool('diff', source.name, before.base, base)
    extents.push(...(await child.pool('diff', image.name, before.own, null)))
  }
  await operations.perform(
    operations.setImage(image, { volume: source.name, base, own: before?.own ?? null, complete: false }),
  )
  bench.note(`copy ${extents.length} extents from ${source.name}@${base} to ${image.name}`)
  const copied = await copy(bench, source, base, image, extents)
  if (!copied) return
  if (content.sectors !== image.content.sectors) throw new Error('the image has another size')
  await observeRefused(bench, image)
  for (let sector = 0; sector < content.sectors; sector++) {
    if (content.certain(sector) && image.content.newest(sector) !== content.newest(sector)) {
      const texts = [image.content, content].map((of) => shadow.origin(of.newest(sector)))
      const what = before === null ? 'mapped()' : 'diff()'
      throw new Mismatch(`${what} left out sector ${sector} of ${image.name}: ${texts[0]}, in the source ${texts[1]}`)
    }
  }
  const own = shadow.newName('own')
  if (!(await operations.perform(operations.snapshot(image, own, { hidden: true })))) return
  await operations.perform(operations.setImage(image, { volume: source.name, base, own, complete: true }))
  if (before?.own && image.snapshots.has(before.own)) {
    await operations.perform(operations.snapshotRemoval(image, before.own))
  }
  if (before && source.snapshots.has(before.base)) {
    await operations.perform(operations.snapshotRemoval(source, before.base))
  }
}

/** Of a write that was refused nobody knows what it left: it is read, so that the image is compared as it is. */
async function observeRefused(bench: Bench, image: ModelVolume): Promise<void> {
  const { content } = image
  const file = await bench.open(image)
  const allowed = (sector: number): number[] => content.candidates(sector)
  for (let sector = 0; sector < content.sectors; sector++) {
    if (content.certain(sector)) continue
    const { serials, wrong, findings } = await readSectors(file, sector, 1, allowed, bench.origin)
    if (wrong > 0) throw new Mismatch(`${image.name}: ${findings.join('\n  ')}`)
    content.observe(sector, serials[0]!, bench.shadow.clock.tick())
  }
}

/** @returns false when there was no room for all of it */
async function copy(
  bench: Bench,
  source: ModelVolume,
  base: string,
  image: ModelVolume,
  extents: readonly ByteExtent[],
): Promise<boolean> {
  const { content } = source.snapshots.get(base)!
  const to = await bench.open(image)
  const buffer = alignedBuffer(pieceSectors * sectorBytes)
  return bench.withSnapshot(source.name, base, async (from) => {
    for (const { offset, lengthBytes } of extents) {
      const begin = offset / sectorBytes
      const end = Math.min(content.sectors, (offset + lengthBytes) / sectorBytes)
      for (let first = begin; first < end; first += pieceSectors) {
        const count = Math.min(pieceSectors, end - first)
        const { serials, wrong, findings } = await readSectors(
          from,
          first,
          count,
          (sector) => content.candidates(sector),
          bench.origin,
          buffer.subarray(0, count * sectorBytes),
        )
        if (wrong > 0) throw new Mismatch(`${source.name}@${base}: ${wrong} sectors\n  ${findings.join('\n  ')}`)
        const tick = bench.shadow.clock.tick()
        for (let index = 0; index < count; index++) content.observe(first + index, serials[index]!, tick)
        const write = image.content.issue(first, count, (index) => serials[index]!)
        try {
          await to.write(buffer.subarray(0, count * sectorBytes), first * sectorBytes)
        } catch (error) {
          if (!isNoSpace(error)) throw error
          bench.note('refused: no space for the image')
          bench.refusals += 1
          return false
        }
        write.acked = bench.shadow.clock.tick()
      }
    }
    return true
  })
}

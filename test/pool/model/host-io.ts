/** What hosts do with a volume, chosen at random: reads, writes, zeros, trims, flushes. */
import { alignedBuffer } from './aligned.js'
import type { Bench } from './bench.js'
import { isNoSpace } from './open-file.js'
import type { ModelVolume } from './shadow.js'
import { sectorBytes, stamp } from './stamps.js'
import { Mismatch, readSectors } from './verify.js'

const most = { blocks: 6, sectors: 2048 }
const spare: Buffer[] = []

async function withBuffer<T>(use: (buffer: Buffer) => Promise<T>): Promise<T> {
  const buffer = spare.pop() ?? alignedBuffer(most.sectors * sectorBytes)
  try {
    return await use(buffer)
  } finally {
    spare.push(buffer)
  }
}

/** Some sectors, a whole block, some whole blocks, or any range; often where others were before. */
function someRange({ random, blockSectors }: Bench, { content }: ModelVolume): { first: number; count: number } {
  const blocks = Math.ceil(content.sectors / blockSectors)
  const hot = random.chance(0.5) ? Math.max(1, blocks >> 3) : blocks
  const block = random.below(hot)
  let first = block * blockSectors
  let count = blockSectors
  const shape = random.weighted({ few: 4, whole: 4, several: 2, any: 3 })
  if (shape === 'few') {
    first += random.below(blockSectors)
    count = random.between(1, Math.min(16, blockSectors))
  } else if (shape === 'several') count = blockSectors * random.between(2, most.blocks)
  else if (shape === 'any') {
    first += random.below(blockSectors)
    count = random.between(1, 3 * blockSectors)
  }
  first = Math.min(first, content.sectors - 1)
  return { first, count: Math.min(count, content.sectors - first, most.sectors) }
}

/** The request came to nothing for want of space. Anything else is a fault, or its process dies. */
function excuse(bench: Bench, error: unknown): void {
  if (bench.killing || !isNoSpace(error)) throw error
  bench.refusals += 1
  bench.note('refused: no space')
}

type Change = 'write' | 'zeros' | 'trim'

/** One write, of data or zeros, or one trim. */
export async function change(bench: Bench, volume: ModelVolume, kind: Change): Promise<void> {
  const file = await bench.open(volume)
  const { first, count } = someRange(bench, volume)
  const end = bench.reserve(volume, first, count)
  if (!end) return
  try {
    bench.note(`${kind} ${volume.name} ${first}+${count}${file.attached ? ' (device)' : ''}`)
    const serial = kind === 'write' ? bench.shadow.newSerial(`${volume.name}, step ${bench.step}`) : 0
    const write = volume.content.issue(first, count, () => serial)
    if (kind === 'trim') await file.trim(first * sectorBytes, count * sectorBytes)
    else {
      await withBuffer(async (buffer) => {
        const bytes = buffer.subarray(0, count * sectorBytes)
        stamp(bytes, first, () => serial)
        await file.write(bytes, first * sectorBytes)
      })
    }
    write.acked = bench.shadow.clock.tick()
  } catch (error) {
    excuse(bench, error)
  } finally {
    end()
  }
}

/** Read a range and compare it; also while it is written. */
export async function look(bench: Bench, volume: ModelVolume): Promise<void> {
  const file = await bench.open(volume)
  const { first, count } = someRange(bench, volume)
  bench.note(`read ${volume.name} ${first}+${count}`)
  const since = bench.shadow.clock.hold()
  const { content } = volume
  const { wrong, findings } = await withBuffer((buffer) =>
    readSectors(file, first, count, (sector) => content.candidates(sector, since), bench.origin, buffer),
  )
  bench.shadow.clock.release(since)
  if (wrong > 0) throw new Mismatch(`read of ${volume.name}: ${wrong} sectors are wrong\n  ${findings.join('\n  ')}`)
}

/** Make the pool durable, as a host does: by a flush of any of its volumes. */
export async function flush(bench: Bench, volume: ModelVolume): Promise<void> {
  const file = await bench.open(volume)
  bench.note(`flush ${volume.name}`)
  const since = bench.shadow.clock.tick()
  await file.flush()
  bench.shadow.commit(since)
}

/** One request of any kind. */
export async function request(bench: Bench, volume: ModelVolume): Promise<void> {
  const kind = bench.random.weighted({ write: 60, zeros: 7, trim: 6, look: 15, flush: 8 })
  if (kind === 'look') await look(bench, volume)
  else if (kind === 'flush') await flush(bench, volume)
  else await change(bench, volume, kind)
}

import { alignedBuffer } from './aligned.js'
import type { Content } from './content.js'
import { explain, readStamp, sectorBytes } from './stamps.js'

/** Wrong bytes. */
export class Mismatch extends Error {}

/** What can be read: a file or device of a volume or snapshot. */
export interface Readable {
  read(bytes: Buffer, offset: number): Promise<void>
}

export interface Verdict {
  /** What the sectors read as, when all of it is allowed. */
  readonly serials: Uint32Array
  readonly wrong: number
  /** The first few wrong ones, in words. */
  readonly findings: readonly string[]
}

const pieceBytes = 1 << 20
const findingsShown = 6

/**
 * Read `count` sectors and see whether each one is allowed.
 *
 * @param allowed what a sector may read as, asked after it was read
 */
export async function readSectors(
  source: Readable,
  first: number,
  count: number,
  allowed: (sector: number) => readonly number[],
  origin: (serial: number) => string,
  buffer = alignedBuffer(Math.min(pieceBytes, count * sectorBytes)),
): Promise<Verdict> {
  const serials = new Uint32Array(count)
  const findings: string[] = []
  let wrong = 0
  const pieceSectors = buffer.length / sectorBytes
  for (let done = 0; done < count; done += pieceSectors) {
    const bytes = buffer.subarray(0, Math.min(pieceSectors, count - done) * sectorBytes)
    await source.read(bytes, (first + done) * sectorBytes)
    for (let index = 0; index * sectorBytes < bytes.length; index++) {
      const sector = first + done + index
      const serial = readStamp(bytes, index, sector)
      const possible = allowed(sector)
      if (possible.includes(serial)) serials[done + index] = serial
      else {
        wrong += 1
        if (findings.length < findingsShown) {
          const found = serial < 0 ? explain(bytes, index, origin) : origin(serial)
          findings.push(`sector ${sector} reads as ${found}, not as ${possible.map(origin).join(' or ')}`)
        }
      }
    }
  }
  return { serials, wrong, findings }
}

/** Read all of it; `observed` is called for each sector whose state was not certain. @throws Mismatch */
export async function verifyAll(
  what: string,
  source: Readable,
  content: Content,
  after: 'running' | 'process crash' | 'power cut',
  origin: (serial: number) => string,
  tick: number,
): Promise<void> {
  const allowed = (sector: number): number[] =>
    after === 'power cut' ? content.survivors(sector) : content.candidates(sector)
  const { serials, wrong, findings } = await readSectors(source, 0, content.sectors, allowed, origin)
  if (wrong > 0) throw new Mismatch(`${what}: ${wrong} sectors are wrong\n  ${findings.join('\n  ')}`)
  for (let sector = 0; sector < serials.length; sector++) {
    if (after === 'running') content.observe(sector, serials[sector]!, tick)
    else content.settle(sector, serials[sector]!)
  }
}

/**
 * Sectors that say which write they came from, so that stale, foreign and torn bytes are told apart.
 *
 * A sector of 512 bytes is 128 words: magic, serial number of the write, the sector's number on its volume, and 125 words
 * that follow from these two. Serial number 0 is a sector of zeros.
 */
const wordsPerSector = 128
const magic = 0x4c444f4d
/** What fills blocks that nobody may read: see power-cut.ts. */
const garbageMagic = 0x47415242

export const sectorBytes = 512

function firstFiller(serial: number, sector: number): number {
  return (Math.imul(serial, 0x9e3779b1) ^ Math.imul(sector + 1, 0x85ebca77)) | 0
}

function wordsOf(bytes: Buffer): Int32Array {
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
}

/** Fill whole sectors: the first of `bytes` is `first` on its volume, and the nth comes from write `serialOf(n)`. */
export function stamp(bytes: Buffer, first: number, serialOf: (index: number) => number): void {
  const words = wordsOf(bytes)
  const count = bytes.length / sectorBytes
  for (let index = 0; index < count; index++) {
    const at = index * wordsPerSector
    const serial = serialOf(index)
    if (serial === 0) {
      words.fill(0, at, at + wordsPerSector)
      continue
    }
    words[at] = magic
    words[at + 1] = serial
    words[at + 2] = first + index
    let filler = firstFiller(serial, first + index)
    for (let word = 3; word < wordsPerSector; word++) {
      words[at + word] = filler
      filler = (Math.imul(filler, 1664525) + 1013904223) | 0
    }
  }
}

/** Fill with bytes that no volume ever held. */
export function fillWithGarbage(bytes: Buffer): void {
  wordsOf(bytes).fill(garbageMagic)
}

/** Which write the nth sector of `bytes` came from, when it is sector `sector` of its volume; -1: from none, see explain(). */
export function readStamp(bytes: Buffer, index: number, sector: number): number {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset + index * sectorBytes, wordsPerSector)
  if (words[0] !== magic) {
    for (let word = 0; word < wordsPerSector; word++) if (words[word] !== 0) return -1
    return 0
  }
  const serial = words[1]!
  if (words[2] !== sector) return -1
  let filler = firstFiller(serial, sector)
  for (let word = 3; word < wordsPerSector; word++) {
    if (words[word] !== filler) return -1
    filler = (Math.imul(filler, 1664525) + 1013904223) | 0
  }
  return serial
}

/** What a sector is that readStamp() does not know. */
export function explain(bytes: Buffer, index: number, origin: (serial: number) => string): string {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset + index * sectorBytes, wordsPerSector)
  if (words[0] === garbageMagic) return 'bytes of a free block'
  if (words[0] !== magic) {
    const hex = bytes.subarray(index * sectorBytes, index * sectorBytes + 32).toString('hex')
    return `neither zeros nor a stamp: ${hex}...`
  }
  const serial = words[1]!
  if (readStamp(bytes, index, words[2]!) === -1) return `torn, begins like sector ${words[2]} of ${origin(serial)}`
  return `sector ${words[2]} of ${origin(serial)}, in the wrong place`
}

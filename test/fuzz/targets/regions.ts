import { crc32c } from '../../../src/block/crc32c.js'
import { MiB } from '../../../src/block/units.js'
import {
  decodeRegionFile,
  encodeRegionFile,
  REGION_HEADER_BYTES,
  REGION_PAGE_BYTES,
  regionHeaderFields,
  regionPageFields,
} from '../../../src/journal/region-file.js'
import { RegionMap } from '../../../src/journal/region-map.js'
import type { OpenTarget } from '../target.js'

const flag = { seal: 1, sealPages: 2 } as const
const recordId = Buffer.from('00112233445566778899aabbccddeeff', 'hex')
const volumeBytes = [100 * MiB, 3 * MiB + 512, 5 * 1024 * 1024 * MiB]

/** First byte: flags; with them the checksums of the header and of the pages are made right. The rest is a region record. */
export const regions: OpenTarget = () => ({
  seeds: () => {
    const map = new RegionMap({ regionBytes: 1024 * MiB, volumeBytes })
    map.add(0, 0, 1)
    map.add(2, 70 * MiB - 1, 2)
    const file = encodeRegionFile(recordId, map)
    return [0, 1, 2, 3].map((flags) => Buffer.concat([Buffer.of(flags), file]))
  },
  run(input) {
    const flags = input[0] ?? 0
    const file = Buffer.from(input.subarray(1))
    const { crc } = regionHeaderFields
    if ((flags & flag.seal) !== 0 && file.length >= REGION_HEADER_BYTES) {
      file.writeUInt32LE(crc32c(file.subarray(0, crc.offset)), crc.offset)
    }
    if ((flags & flag.sealPages) !== 0) sealPages(file)
    const { map, damagedPages } = decodeRegionFile(file, recordId, volumeBytes, 'fuzzed')
    // What is read is a map of these volumes: each region within one of them, and no more than all.
    for (const { volume, offset, lengthBytes } of map.runs()) {
      if (offset + lengthBytes > volumeBytes[volume]!) throw new Error(`a region beyond volume ${volume}`)
    }
    if (damagedPages > 0 && map.bytes() === 0) throw new Error('a damaged page counts as nothing')
  },
})

function sealPages(file: Buffer): void {
  const p = regionPageFields
  const seed = crc32c(recordId)
  for (let at = REGION_HEADER_BYTES; at + REGION_PAGE_BYTES <= file.length; at += REGION_PAGE_BYTES) {
    const page = file.subarray(at, at + REGION_PAGE_BYTES)
    page.writeUInt32LE((at - REGION_HEADER_BYTES) / REGION_PAGE_BYTES, p.number.offset)
    page.writeUInt32LE(crc32c(page.subarray(p.number.offset), seed), p.crc.offset)
  }
}

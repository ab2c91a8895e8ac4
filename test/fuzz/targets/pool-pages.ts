import assert from 'node:assert/strict'
import { StorageError } from '../../../src/block/storage-error.js'
import { Geometry, layerId, layOutDevice, pageBytes, unitNumber } from '../../../src/pool/geometry.js'
import { decodeLabel, encodeLabel } from '../../../src/pool/label.js'
import { decodeSuperblock, encodeSuperblock } from '../../../src/pool/superblock.js'
import { decodeMapPage, encodeMapPage, type MapPagePlace, UnitMap } from '../../../src/pool/unit-map.js'
import { decodeUnitPage, encodeUnitPage, pageChecksum, soundPageChecksum } from '../../../src/pool/unit-page.js'
import { tiny } from '../../fixtures/pool/pool-rig.js'
import type { OpenTarget } from '../target.js'

const poolId = Buffer.alloc(16, 0x42)
const layout = layOutDevice(tiny, 0, 4 << 20)
const unit = unitNumber(layout.firstUnit)
const slots = tiny.unitBytes / tiny.blockBytes
const place: MapPagePlace = { device: 0, number: 0, base: 0, count: layout.unitCount, slots }

/** First byte: which page; with bit 7 its checksum is made right. The rest is the page. */
export const poolPages: OpenTarget = () => ({
  words: ['TMLB', 'TMSB', 'TMUP', 'TMUM'].map((text) => Buffer.from(text)),
  seeds: () => {
    const map = new UnitMap(layout.unitCount)
    map.layer[1] = 3
    map.used[1] = 2
    const superblock = {
      ...{ poolId, sequence: 5, logSequence: 1000 as Parameters<typeof encodeSuperblock>[0]['logSequence'] },
      ...{ bootId: Buffer.alloc(16, 1), clean: true, exported: false, devices: 1, catalogCrc: 1, catalogLength: 200 },
    }
    const blocks = Float64Array.from({ length: slots }, (_, at) => (at % 3 === 0 ? -1 : at * 2 ** 30))
    const pages = [
      encodeLabel({ poolId, ...tiny, layout }),
      encodeSuperblock(superblock),
      encodeUnitPage({ unit, layer: layerId(3), checkpoint: 5, blocks }),
      encodeMapPage(map, place),
    ]
    return pages.flatMap((page, kind) => [0, 128].map((seal) => Buffer.concat([Buffer.of(kind | seal), page])))
  },
  run(input) {
    const page = Buffer.alloc(pageBytes)
    input.subarray(1).copy(page)
    const kind = input[0] ?? 0
    if ((kind & 128) !== 0) page.writeUInt32LE(pageChecksum(page), 4)
    if (!decode(kind & 3, page)) throw new StorageError('REFUSED', { op: 'read', object: 'page', hint: '' })
  },
})

function decode(kind: number, page: Buffer): boolean {
  if (kind === 0) {
    const label = decodeLabel(page)
    if (typeof label !== 'object') return false
    // What passes for a layout can be reckoned with.
    const first = { ...label.layout, index: 0 }
    const geometry = new Geometry(label, [first])
    assert(Number.isSafeInteger(geometry.unitCount) && geometry.unitCount > 0)
    return true
  }
  if (kind === 1) {
    const superblock = decodeSuperblock(page, poolId, 1)
    return typeof superblock === 'object'
  }
  if (kind === 2) {
    if (soundPageChecksum(page, 'TMUP') === undefined) return false
    return decodeUnitPage(page, unit, slots) !== undefined
  }
  if (soundPageChecksum(page, 'TMUM') === undefined) return false
  const map = new UnitMap(layout.unitCount)
  if (!decodeMapPage(page, map, place)) return false
  assert(map.used.every((used) => used <= slots))
  return true
}

import { crc32c } from '../../../src/block/crc32c.js'
import { StorageError } from '../../../src/block/storage-error.js'
import { applyOperation, emptyCatalog } from '../../../src/pool/catalog.js'
import {
  type CatalogImage,
  catalogChecksum,
  catalogFields,
  decodeCatalog,
  emptyDirectory,
  encodeCatalog,
} from '../../../src/pool/catalog-codec.js'
import { catalogFaults } from '../../../src/pool/check-catalog.js'
import { layerId } from '../../../src/pool/geometry.js'
import { golden, operations, poolId } from '../../fixtures/pool/golden-pool.js'
import type { OpenTarget } from '../target.js'

/** First byte: 1 the checksum is made right, 0 it is not. The rest is the catalog of a pool. */
export const poolCatalog: OpenTarget = () => ({
  words: [
    '"layer":',
    '"parent":',
    'null',
    '[]',
    '{}',
    '9007199254740993',
    '-1',
    '"role":"inbound"',
    '"snapshots":',
  ].map((text) => Buffer.from(text)),
  seeds: () => {
    const bytes = encodeCatalog(sample())
    return [0, 1].map((seal) => Buffer.concat([Buffer.of(seal), bytes]))
  },
  run(input) {
    const bytes = Buffer.from(input.subarray(1))
    if ((input[0]! & 1) === 1 && bytes.length >= 8) {
      bytes.writeUInt32LE(crc32c(bytes.subarray(catalogFields.version.offset)), catalogFields.crc.offset)
    }
    const image = catalogChecksum(bytes) === undefined ? undefined : decodeCatalog(bytes, poolId)
    if (typeof image !== 'object') throw new StorageError('REFUSED', { op: 'read', object: 'catalog', hint: '' })
    // What can be read is either sound and can be written again, or its faults are named.
    if (catalogFaults(image.catalog).length === 0) encodeCatalog(image)
    else throw new StorageError('FAULTY', { op: 'read', object: 'catalog', hint: '' })
  },
})

function sample(): CatalogImage {
  const catalog = emptyCatalog('golden', golden.createdAt, [{ sizeBytes: golden.sizeBytes, path: '/srv/golden' }])
  for (const operation of operations) applyOperation(catalog, operation)
  const holes = new Map([
    [layerId(3), Float64Array.of(0, 3, 1000, 2 ** 20)],
    [layerId(5), Float64Array.of(7, 1)],
  ])
  return { poolId, sequence: 3, catalog, holes, directory: emptyDirectory(2) }
}

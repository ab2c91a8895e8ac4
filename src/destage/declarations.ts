import { isName } from '../block/names.js'
import { StorageError } from '../block/storage-error.js'
import { sectorBytes } from '../block/units.js'
import type { Declaration } from './destage-job.js'
import type { DeclaredVolume } from './images.js'

const volumeLimit = 1024

/** A peer may be wrong: its names become files here. @throws StorageError BAD_DECLARATION */
export function checkDeclarations(declared: readonly Declaration[]): DeclaredVolume[] {
  const names = new Set(declared.map(({ name }) => name))
  const sound =
    declared.length > 0 &&
    declared.length <= volumeLimit &&
    names.size === declared.length &&
    new Set(declared.map(({ index }) => index)).size === declared.length &&
    declared.every(
      ({ name, stream, sizeBytes }) =>
        isName(name) &&
        isName(stream) &&
        Number.isSafeInteger(sizeBytes) &&
        sizeBytes > 0 &&
        sizeBytes % sectorBytes === 0,
    )
  if (!sound) {
    throw new StorageError('BAD_DECLARATION', {
      op: 'destage',
      object: 'first epoch of a generation',
      hint: 'The source declares volumes that cannot be. Check its version, and initialize the stream again there.',
    })
  }
  return declared.map(({ index, name, sizeBytes }) => ({ index, name, sizeBytes }))
}

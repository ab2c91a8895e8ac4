import { Backing } from '../volume/backing.js'

/** A volume of a stream, as workers read and write it: its backing, or the file that its front end serves. */
export interface VolumeFile {
  readonly index: number
  readonly path: string
  readonly sizeBytes: number
}

/** A volume whose data can be told from its holes. */
export interface SparseVolume extends VolumeFile {
  /** Where its data begin at or after an offset; undefined when only zeros follow. */
  readonly nextData: (offset: number) => number | undefined
}

/**
 * For workers: what is asked of a disk that hangs hangs, too.
 * @throws StorageError BACKING_UNAVAILABLE
 */
export function withSparse<T>(files: readonly VolumeFile[], use: (volumes: readonly SparseVolume[]) => T): T {
  const open = new Map<string, Backing>()
  const backing = (path: string): Backing => {
    const known = open.get(path) ?? new Backing(path, 'read')
    open.set(path, known)
    return known
  }
  try {
    return use(files.map((file) => ({ ...file, nextData: (offset) => backing(file.path).nextData(offset) })))
  } finally {
    for (const each of open.values()) each.close()
  }
}

import type { ImageOrigin, ThinSnapshotFacts, ThinVolumeFacts } from '../pool/thin-pool.js'

/**
 * Names of the hidden snapshots that the refresh of a complete image needs. No operator can give one: they begin with a
 * dot and have colons.
 */

/** Of the source, as it is copied to this image. `mark` is different every time. */
export function baseName(image: string, mark: string): string {
  return `.image:${image}:${mark}`
}

export function isBaseOf(image: string, snapshot: ThinSnapshotFacts): boolean {
  return snapshot.hidden && snapshot.name.startsWith(`.image:${image}:`)
}

export function isBase(snapshot: ThinSnapshotFacts): boolean {
  return snapshot.hidden && snapshot.name.startsWith('.image:')
}

/** Of the image, when it equals this snapshot of its source: the name tells which, so that no crash can part the two. */
export function ownName(base: ThinSnapshotFacts): string {
  return `.own:${stamp(base)}:${base.name}`
}

export function isOwn(snapshot: ThinSnapshotFacts): boolean {
  return snapshot.hidden && snapshot.name.startsWith('.own:')
}

/**
 * The snapshot of the source that the image equalled when its own hidden snapshot was taken; undefined when one of the
 * two is gone. A snapshot that was removed and made again under the same name is another.
 */
export function equalledBase(
  image: ImageOrigin,
  imageFacts: ThinVolumeFacts,
  source: ThinVolumeFacts,
): ThinSnapshotFacts | undefined {
  const { own } = image
  if (own === null || !imageFacts.snapshots.some(({ name }) => name === own)) return undefined
  return source.snapshots.find((snapshot) => ownName(snapshot) === own)
}

function stamp({ createdAt }: ThinSnapshotFacts): string {
  return Date.parse(createdAt).toString(36)
}

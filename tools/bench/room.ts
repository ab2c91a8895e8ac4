import { statfs } from 'node:fs/promises'

const GiB = 2 ** 30
/** Left free whatever the bench does. */
const reserveBytes = 2 * GiB

/** @throws when the file system of the folder has too little room for so many bytes and a reserve */
export async function requireRoom(directory: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory)
  const free = bavail * bsize
  if (free >= bytes + reserveBytes) return
  const size = (value: number): string => `${(value / GiB).toFixed(1)} GiB`
  throw new Error(
    `${directory} has ${size(free)} free; up to ${size(bytes)} are used, and ${size(reserveBytes)} stay free. Name another with --directory.`,
  )
}

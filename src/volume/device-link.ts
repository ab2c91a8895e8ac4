import { readFileSync } from 'node:fs'
import { mkdir, readlink, rename, rm, symlink } from 'node:fs/promises'
import path from 'node:path'
import { errnoOf, StorageError } from '../block/storage-error.js'

const linkFolder = '/dev/tidemark'

/** The stable name of an attached volume, for scripts and fstab. */
export function deviceLink(volume: string): string {
  return path.join(linkFolder, volume)
}

/**
 * Point /dev/tidemark/NAME at the loop device. A link that leads nowhere any more is replaced.
 * @throws StorageError LINK_TAKEN when another agent on this machine serves a volume of the same name
 */
export async function makeLink(volume: string, device: string): Promise<string> {
  const link = deviceLink(volume)
  await mkdir(linkFolder, { recursive: true, mode: 0o755 })
  const holder = await targetOf(link)
  if (holder !== undefined && holder !== device && serves(holder, volume)) {
    throw new StorageError('LINK_TAKEN', {
      op: 'volume attach',
      object: volume,
      hint: `${link} leads to ${holder}, served by another agent on this machine. Give this volume another name.`,
    })
  }
  const temporary = `${link}.${process.pid}`
  await rm(temporary, { force: true })
  await symlink(device, temporary)
  await rename(temporary, link)
  return link
}

/** Remove the link if it is ours; another agent's stays. */
export async function removeLink(volume: string, device: string): Promise<void> {
  const link = deviceLink(volume)
  if ((await targetOf(link)) === device) await rm(link, { force: true })
}

async function targetOf(link: string): Promise<string | undefined> {
  try {
    return await readlink(link)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'EINVAL') return undefined
    throw error
  }
}

/**
 * Whether a loop device is that of a volume of this name: its file is the front end, named like the volume. A link left
 * by a crash may lead to a device that meanwhile serves something else.
 * Source: Linux, Documentation/ABI/testing/sysfs-block-loop.
 */
function serves(device: string, volume: string): boolean {
  try {
    const file = readFileSync(`/sys/block/${path.basename(device)}/loop/backing_file`, 'utf8').trimEnd()
    return path.basename(file) === volume
  } catch {
    return false
  }
}

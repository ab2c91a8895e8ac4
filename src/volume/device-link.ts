import { mkdir, readFile, readlink, rm, stat, symlink } from 'node:fs/promises'
import path from 'node:path'
import { errnoOf, StorageError } from '../block/storage-error.js'

const linkFolder = '/dev/tidemark'
/** A live agent answers in far less. */
const answerMs = 2000

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
  if (holder === device) return link
  if (holder !== undefined && (await serves(holder, volume))) {
    throw new StorageError('LINK_TAKEN', {
      op: 'volume attach',
      object: volume,
      hint: `${link} leads to ${holder}, served by another agent on this machine. Detach that one first.`,
    })
  }
  // Under its name at once: a temporary one would stay for ever when the agent dies before it is renamed.
  if (holder !== undefined) await rm(link, { force: true })
  try {
    await symlink(device, link)
  } catch (error) {
    // Another agent was faster: whether it serves this volume is looked at again.
    if (errnoOf(error) === 'EEXIST') return makeLink(volume, device)
    throw error
  }
  return link
}

/** Remove the link if it is ours; another agent's stays. */
export async function removeLink(volume: string, device: string): Promise<void> {
  const link = deviceLink(volume)
  if ((await targetOf(link)) === device) await rm(link, { force: true })
}

/** Remove a link that a crash has left, unless its device has a volume of this name below it: it may be anybody's by now. */
export async function removeStaleLink(volume: string): Promise<void> {
  const link = deviceLink(volume)
  const device = await targetOf(link)
  if (device === undefined) return
  const file = await backingFile(device)
  if (file === undefined || path.basename(file) !== volume) await rm(link, { force: true })
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
 * by a crash may lead to a device that meanwhile serves something else, or to one that nobody serves any more.
 */
async function serves(device: string, volume: string): Promise<boolean> {
  const file = await backingFile(device)
  return file !== undefined && path.basename(file) === volume && (await isAnswered(file))
}

/** Undefined: no file is below it. Source: Linux, Documentation/ABI/testing/sysfs-block-loop. */
async function backingFile(device: string): Promise<string | undefined> {
  try {
    return (await readFile(`/sys/block/${path.basename(device)}/loop/backing_file`, 'utf8')).trimEnd()
  } catch {
    return undefined
  }
}

/** False when the agent that served this file is gone. One that takes its time is there. */
function isAnswered(file: string): Promise<boolean> {
  const asked = stat(file).then(
    () => true,
    (error) => errnoOf(error) !== 'ENOTCONN',
  )
  const late = new Promise<boolean>((resolve) => setTimeout(resolve, answerMs, true).unref())
  return Promise.race([asked, late])
}

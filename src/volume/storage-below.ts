import { readdir, readFile, realpath, stat } from 'node:fs/promises'
import path from 'node:path'
import { errnoOf } from '../block/storage-error.js'

/** What a path lies on, however many loop devices, partitions and file systems are between. */
export interface StorageBelow {
  /** Volumes of this agent. */
  readonly volumes: ReadonlySet<string>
  /** Block devices, as MAJOR:MINOR, on any level. */
  readonly devices: ReadonlySet<string>
  /** Files that carry a file system through a loop device. */
  readonly files: ReadonlySet<string>
  /** What is at the bottom: kernel names (`sda`). Empty where the machine does not know (network, memory). */
  readonly disks: ReadonlySet<string>
}

export interface StorageBelowOptions {
  /** Where the served files of this agent's volumes are. They are never touched: that could be waiting for oneself. */
  readonly runDirectory: string
  /** Paths that a volume of this agent keeps its bytes in. */
  readonly backingOf: (volume: string) => readonly string[]
  /** /proc and /sys, for tests. */
  readonly root?: string
}

interface Mount {
  readonly device: string
  readonly point: string
  readonly type: string
  readonly source: string
}

/** Whatever exists of the path decides; a folder that is still to be made lies where its parent does. */
export async function storageBelow(given: string, options: StorageBelowOptions): Promise<StorageBelow> {
  const walk = new Walk(options, await readMounts(options.root ?? '/'))
  await walk.path(await existing(path.resolve(given)))
  return walk
}

class Walk implements StorageBelow {
  readonly volumes = new Set<string>()
  readonly devices = new Set<string>()
  readonly files = new Set<string>()
  readonly disks = new Set<string>()
  readonly #options: StorageBelowOptions
  readonly #root: string
  readonly #mounts: readonly Mount[]

  constructor(options: StorageBelowOptions, mounts: readonly Mount[]) {
    this.#options = options
    this.#root = options.root ?? '/'
    this.#mounts = mounts
  }

  /** A block device by its node, or a file or folder by what its file system is on. */
  async path(file: string): Promise<void> {
    const number = file.startsWith('/dev/') ? await deviceNumber(file) : undefined
    if (number !== undefined) return this.device(number)
    const { runDirectory } = this.#options
    if (file.startsWith(`${runDirectory}/`)) return this.#volume(path.basename(file))
    const mount = mountOf(this.#mounts, file)
    if (!mount || mount.type.startsWith('fuse')) return
    if (!mount.device.startsWith('0:')) return this.device(mount.device)
    // btrfs and the like have a number of their own.
    const below = mount.source.startsWith('/dev/') ? await deviceNumber(mount.source) : undefined
    if (below !== undefined) await this.device(below)
  }

  async device(number: string): Promise<void> {
    if (this.devices.has(number)) return
    this.devices.add(number)
    const folder = await realpath(path.join(this.#root, 'sys/dev/block', number)).catch(() => undefined)
    if (folder === undefined) return
    if ((await readLine(path.join(folder, 'partition'))) !== undefined) {
      const whole = await readLine(path.join(folder, '../dev'))
      if (whole !== undefined) return this.device(whole)
    }
    const file = (await readLine(path.join(folder, 'loop/backing_file')))?.replace(/ \(deleted\)$/, '')
    if (file !== undefined) {
      this.files.add(file)
      return this.path(file)
    }
    const below = await readdir(path.join(folder, 'slaves')).catch(() => [])
    if (below.length === 0) this.disks.add(path.basename(folder))
    for (const name of below) {
      const inner = await readLine(path.join(folder, 'slaves', name, 'dev'))
      if (inner !== undefined) await this.device(inner)
    }
  }

  async #volume(name: string): Promise<void> {
    if (this.volumes.has(name)) return
    this.volumes.add(name)
    for (const backing of this.#options.backingOf(name)) {
      this.files.add(backing)
      await this.path(backing)
    }
  }
}

function mountOf(mounts: readonly Mount[], file: string): Mount | undefined {
  let found: Mount | undefined
  for (const mount of mounts) {
    const within = file === mount.point || file.startsWith(mount.point === '/' ? '/' : `${mount.point}/`)
    // The last of several on one point is the one that is seen.
    if (within && mount.point.length >= (found?.point.length ?? 0)) found = mount
  }
  return found
}

async function readMounts(root: string): Promise<Mount[]> {
  const text = await readFile(path.join(root, 'proc/self/mountinfo'), 'utf8')
  return text
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [before = '', after = ''] = line.split(' - ')
      const [, , device = '', , point = ''] = before.split(' ')
      const [type = '', source = ''] = after.split(' ')
      return { device, point: unescaped(point), type, source: unescaped(source) }
    })
}

/** mountinfo writes space, tab, newline and backslash as three octal digits. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}

/** `8:1`; undefined when it is no block device. */
export async function deviceNumber(node: string): Promise<string | undefined> {
  const facts = await stat(node).catch(() => undefined)
  if (!facts?.isBlockDevice()) return undefined
  // Source: glibc, gnu_dev_major and gnu_dev_minor.
  const number = BigInt(facts.rdev)
  const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & 0xfffff000n)
  const minor = (number & 0xffn) | ((number >> 12n) & 0xffffff00n)
  return `${major}:${minor}`
}

async function readLine(file: string): Promise<string | undefined> {
  return readFile(file, 'utf8').then(
    (text) => text.trimEnd(),
    () => undefined,
  )
}

async function existing(file: string): Promise<string> {
  for (let at = file; ; at = path.dirname(at)) {
    try {
      return path.join(await realpath(at), path.relative(at, file))
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT' || at === '/') throw error
    }
  }
}

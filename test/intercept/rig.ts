import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { lsn, MiB, volumeIndex } from '../../src/block/units.js'
import type { JournalEvent, NativeJournal, NativeVolume, VolumeOptions } from '../../src/intercept/addon.js'
import { intercept } from '../../src/intercept/intercept.js'
import { forget, releaseFolder, remember } from '../fixtures/leftovers.js'

const execute = promisify(execFile)

/** Run a program; what it printed. Throws with its complaints when it fails. */
export async function run(program: string, ...parameters: string[]): Promise<string> {
  const { stdout } = await execute(program, parameters, { maxBuffer: 16 * MiB })
  return stdout.trim()
}

/** A folder with volumes and journals in it; close() gives back whatever is left of them. */
export class Rig {
  readonly folder: string
  readonly #volumes: NativeVolume[] = []
  readonly #journals: NativeJournal[] = []

  private constructor(folder: string) {
    this.folder = folder
  }

  static async open(): Promise<Rig> {
    const folder = await mkdtemp(path.join(tmpdir(), 'intercept-'))
    remember({ kind: 'folder', path: folder })
    return new Rig(folder)
  }

  file(name: string): string {
    return path.join(this.folder, name)
  }

  async backing(name: string, sizeBytes: number): Promise<string> {
    await writeFile(this.file(name), '')
    await truncate(this.file(name), sizeBytes)
    return this.file(name)
  }

  async mountPoint(name: string): Promise<string> {
    await writeFile(this.file(name), '')
    return this.file(name)
  }

  volume(backing: string, options: Partial<VolumeOptions> = {}): NativeVolume {
    const volume = intercept.openVolume({
      name: 'test',
      path: backing,
      sizeBytes: 0,
      direct: false,
      readOnly: false,
      syncBacking: false,
      threads: 2,
      ...options,
    })
    this.#volumes.push(volume)
    return volume
  }

  async attach(volume: NativeVolume, name = 'mount'): Promise<string> {
    return (await volume.attach(await this.mountPoint(name))).device
  }

  async journal(onEvent: (event: JournalEvent) => void = () => {}, segmentBytes = 8 * MiB): Promise<NativeJournal> {
    const directory = this.file(`journal-${this.#journals.length}`)
    await mkdir(directory, { mode: 0o700 })
    const journal = intercept.openJournal({
      directory,
      journalId: Buffer.alloc(16, 7),
      segmentBytes,
      spareSegments: 1,
      limitBytes: 64 * segmentBytes,
      startLsn: lsn(0n),
      incarnation: 1,
      onEvent,
    })
    this.#journals.push(journal)
    return journal
  }

  async close(): Promise<void> {
    for (const volume of this.#volumes) {
      await ignore(volume.detach())
      await ignore(volume.setJournal(null, volumeIndex(0)))
      await ignore(volume.close())
    }
    for (const journal of this.#journals) await ignore(journal.close())
    releaseFolder(this.folder)
    await rm(this.folder, { recursive: true, force: true })
    forget({ kind: 'folder', path: this.folder })
  }
}

/** Closed already, or lost on purpose by the test. */
async function ignore(step: Promise<unknown>): Promise<void> {
  await step.catch(() => undefined)
}

/** Write through the device with direct I/O, so that it has happened when this resolves. */
export async function writeDevice(device: string, offset: number, bytes: Uint8Array, folder: string): Promise<void> {
  const source = path.join(folder, `input-${randomBytes(6).toString('hex')}`)
  await writeFile(source, bytes)
  const block = offset % MiB === 0 && bytes.length % MiB === 0 ? MiB : 512
  try {
    await run(
      'dd',
      `if=${source}`,
      `of=${device}`,
      `bs=${block}`,
      `seek=${offset / block}`,
      'oflag=direct',
      'conv=notrunc',
      'status=none',
    )
  } finally {
    await rm(source)
  }
}

/** Read through the device past every cache. */
export async function readDevice(device: string, offset: number, length: number): Promise<Buffer> {
  await run('blockdev', '--flushbufs', device)
  return readAt(device, offset, length)
}

export async function readAt(file: string, offset: number, length: number): Promise<Buffer> {
  const handle = await open(file, 'r')
  try {
    const buffer = Buffer.alloc(length)
    const { bytesRead } = await handle.read(buffer, 0, length, offset)
    return buffer.subarray(0, bytesRead)
  } finally {
    await handle.close()
  }
}

/** The mounts and loop devices below a folder, as the kernel lists them. */
export async function heldBelow(folder: string): Promise<string[]> {
  const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n')
  const loops = (await run('losetup', '--list', '--noheadings', '--output', 'NAME,BACK-FILE')).split('\n')
  return [...mounts, ...loops].filter((line) => line.includes(folder))
}

/** Wait until it holds; fails after ten seconds. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (await holds()) return
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  throw new Error('it did not happen within ten seconds')
}

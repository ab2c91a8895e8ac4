import { execFile } from 'node:child_process'
import { mkdir, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Test } from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import { forget, releaseFolder, remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import type { OpenSettings } from '../pool/model/child-calls.js'
import { PoolChild } from '../pool/model/pool-child.js'

const execute = promisify(execFile)

export interface RigOptions {
  /** Of each device of the pool; `loop` ones are block devices, the others files. All are sparse. */
  readonly devices: readonly { readonly sizeBytes: number; readonly loop?: boolean }[]
  readonly blockBytes?: number
  readonly unitBytes?: number
  readonly settings?: OpenSettings
}

/** Run a program; what it printed. Throws with its complaints when it fails. */
export async function run(program: string, ...parameters: string[]): Promise<string> {
  const { stdout } = await execute(program, parameters, { maxBuffer: 64 * MiB })
  return stdout.trim()
}

/** A pool in a process of its own, with volumes attached and file systems mounted. Given back with the test. */
export class ThinRig {
  readonly folder: string
  readonly paths: string[] = []
  readonly #options: RigOptions
  #child: PoolChild | undefined

  private constructor(folder: string, options: RigOptions) {
    this.folder = folder
    this.#options = options
  }

  static async create(t: Test, name: string, options: RigOptions): Promise<ThinRig> {
    const rig = new ThinRig(scratchFolder(t, name), options)
    t.teardown(() => rig.giveBack())
    const { devices, settings = {} } = options
    for (const { sizeBytes, loop } of devices) {
      const file = join(rig.folder, `pool-${rig.paths.length}`)
      if (loop) rig.paths.push(await rig.#loopDevice(file, sizeBytes))
      else rig.paths.push(file)
    }
    rig.#child = await PoolChild.start(rig.paths, settings, {
      name,
      devices: rig.paths.map((path, index) => {
        const { sizeBytes, loop } = devices[index]!
        return loop ? { path, kind: 'raw' } : { path, kind: 'file', sizeBytes }
      }),
      blockBytes: options.blockBytes ?? 64 * KiB,
      unitBytes: options.unitBytes ?? 8 * MiB,
    })
    return rig
  }

  get child(): PoolChild {
    if (!this.#child) throw new Error('no process has the pool')
    return this.#child
  }

  get #settings(): OpenSettings {
    return this.#options.settings ?? {}
  }

  async #loopDevice(file: string, sizeBytes: number): Promise<string> {
    await writeFile(file, '')
    await truncate(file, sizeBytes)
    return run('losetup', '--find', '--show', '--direct-io=on', file)
  }

  #mountPoint(volume: string, snapshot: string | null): string {
    return join(this.folder, `${volume}${snapshot === null ? '' : `@${snapshot}`}.served`)
  }

  /** Attach a volume, made first when a size is given. @returns its device */
  async attach(volume: string, sizeBytes?: number): Promise<string> {
    if (sizeBytes !== undefined) await this.child.pool('createVolume', volume, sizeBytes)
    return this.child.own('open', volume, null, this.#mountPoint(volume, null), false)
  }

  /** Attach and say what that took. */
  timedAttach(volume: string): Promise<{ device: string; milliseconds: number }> {
    return this.child.own('timedOpen', volume, this.#mountPoint(volume, null))
  }

  detach(volume: string): Promise<void> {
    return this.child.own('close', this.#mountPoint(volume, null))
  }

  counters(volume: string): Promise<Record<string, number>> {
    return this.child.own('counters', this.#mountPoint(volume, null))
  }

  /** Mount a device for as long as `use` takes. */
  async mounted<T>(what: readonly string[], name: string, use: (directory: string) => Promise<T>): Promise<T> {
    const directory = join(this.folder, name)
    await mkdir(directory, { recursive: true })
    remember({ kind: 'mount', path: directory })
    await run('mount', ...what, directory)
    try {
      return await use(directory)
    } finally {
      await run('umount', directory)
      forget({ kind: 'mount', path: directory })
    }
  }

  /** Close the pool, everything detached, and open it in a new process. */
  async reopen(): Promise<void> {
    await this.child.close()
    this.#child = await PoolChild.start(this.paths, this.#settings)
  }

  /** Close the pool, everything detached. */
  async close(): Promise<void> {
    await this.child.close()
    this.#child = undefined
  }

  async giveBack(): Promise<void> {
    // File systems first: what they still have to write goes to a process that answers.
    releaseFolder(this.folder, true)
    await this.#child?.kill()
    releaseFolder(this.folder)
  }
}

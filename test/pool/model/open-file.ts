import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { promisify } from 'node:util'
import type { PoolChild } from './pool-child.js'

const run = promisify(execFile)

/** A volume or snapshot that the other process serves, as this one sees it: a file, and at times a loop device too. */
export class OpenFile {
  readonly mountPoint: string
  readonly readOnly: boolean
  readonly #child: PoolChild
  #file: FileHandle | undefined
  #device: { readonly handle: FileHandle; readonly path: string } | undefined

  private constructor(child: PoolChild, mountPoint: string, readOnly: boolean) {
    this.#child = child
    this.mountPoint = mountPoint
    this.readOnly = readOnly
  }

  static async open(
    child: PoolChild,
    volume: string,
    snapshot: string | null,
    mountPoint: string,
    readOnly: boolean,
  ): Promise<OpenFile> {
    await child.own('serve', volume, snapshot, mountPoint, readOnly)
    const opened = new OpenFile(child, mountPoint, readOnly)
    opened.#file = await open(mountPoint, readOnly ? constants.O_RDONLY : constants.O_RDWR)
    return opened
  }

  get attached(): boolean {
    return this.#device !== undefined
  }

  async attach(): Promise<void> {
    const path = await this.#child.own('attach', this.mountPoint)
    const access = this.readOnly ? constants.O_RDONLY : constants.O_RDWR
    this.#device = { path, handle: await open(path, access | constants.O_DIRECT) }
  }

  async detach(): Promise<void> {
    await this.#device?.handle.close()
    this.#device = undefined
    await this.#child.own('detach', this.mountPoint)
  }

  /** Through the file, or the device when there is one. The buffer is aligned (aligned.ts). Whole or an error. */
  async write(bytes: Buffer, offset: number): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await this.#handle().write(bytes, done, bytes.length - done, offset + done)
      done += bytesWritten
    }
  }

  async read(bytes: Buffer, offset: number): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await this.#handle().read(bytes, done, bytes.length - done, offset + done)
      if (bytesRead === 0) throw new Error(`${this.mountPoint} ends at ${offset + done}`)
      done += bytesRead
    }
  }

  async trim(offset: number, lengthBytes: number): Promise<void> {
    const range = ['--offset', String(offset), '--length', String(lengthBytes)]
    if (this.#device) await run('blkdiscard', ['--force', ...range, this.#device.path])
    else await run('fallocate', ['--punch-hole', ...range, this.mountPoint])
  }

  /** What was acknowledged before is durable. */
  flush(): Promise<void> {
    return this.#handle().sync()
  }

  async close(): Promise<void> {
    await this.#device?.handle.close()
    this.#device = undefined
    await this.#file?.close()
    this.#file = undefined
    await this.#child.own('close', this.mountPoint)
  }

  /** Its process is dead: give up what is open here. */
  async abandon(): Promise<void> {
    await this.#device?.handle.close().catch(() => undefined)
    await this.#file?.close().catch(() => undefined)
  }

  #handle(): FileHandle {
    if (this.#device) return this.#device.handle
    if (!this.#file) throw new Error(`${this.mountPoint} is closed`)
    return this.#file
  }
}

/** A host was told that there is no room. */
export function isNoSpace(error: unknown): boolean {
  const { code, stderr } = error as { code?: unknown; stderr?: string }
  return code === 'ENOSPC' || /No space left/.test(stderr ?? '')
}

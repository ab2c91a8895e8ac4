import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { promisify } from 'node:util'
import type { PoolChild } from './pool-child.js'

const run = promisify(execFile)

/** No request takes longer than this, whatever waits for room: then something hangs. */
const requestLimitMs = 60_000

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
  write(bytes: Buffer, offset: number): Promise<void> {
    return this.#ends(`write ${offset}+${bytes.length}`, this.#write(bytes, offset))
  }

  async #write(bytes: Buffer, offset: number): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await this.#handle().write(bytes, done, bytes.length - done, offset + done)
      done += bytesWritten
    }
  }

  read(bytes: Buffer, offset: number): Promise<void> {
    return this.#ends(`read ${offset}+${bytes.length}`, this.#read(bytes, offset))
  }

  async #read(bytes: Buffer, offset: number): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await this.#handle().read(bytes, done, bytes.length - done, offset + done)
      if (bytesRead === 0) throw new Error(`${this.mountPoint} ends at ${offset + done}`)
      done += bytesRead
    }
  }

  async trim(offset: number, lengthBytes: number): Promise<void> {
    const range = ['--offset', String(offset), '--length', String(lengthBytes)]
    const punch = () => run('fallocate', ['--punch-hole', ...range, this.mountPoint])
    const discard = async (device: string) => {
      try {
        return await run('blkdiscard', ['--force', ...range, device])
      } catch (error) {
        if (!/Input\/output error/.test((error as { stderr?: string }).stderr ?? '')) throw error
        // The loop driver says that whatever it was told: the file says what it is.
        return punch()
      }
    }
    const trimming = this.#device ? discard(this.#device.path) : punch()
    await this.#ends(`trim ${offset}+${lengthBytes}`, trimming)
  }

  /** What was acknowledged before is durable. */
  flush(): Promise<void> {
    return this.#ends('flush', this.#handle().sync())
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

  /** @throws when the request is not over in time, with what the other process knows about it */
  async #ends<T>(text: string, request: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(async () => {
        const known = [this.#child.own('counters', this.mountPoint), this.#child.pool('facts')]
        const facts = await Promise.all(known).catch(String)
        reject(new Error(`${this.mountPoint}: ${text} does not end: ${JSON.stringify(facts)}`))
      }, requestLimitMs)
    })
    try {
      return await Promise.race([request, late])
    } finally {
      clearTimeout(timer)
    }
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

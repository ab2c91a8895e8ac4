import { readdir, readFile, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { makeFolder, writeDurably } from '../block/durable-file.js'
import { StorageError } from '../block/storage-error.js'

/** Secrets as files of their own, mode 0600, one a name: nothing else of the agent's state holds a key. */
export class SecretFiles {
  readonly #directory: string

  constructor(directory: string) {
    this.#directory = directory
  }

  async write(name: string, value: string): Promise<void> {
    await makeFolder(this.#directory)
    await writeDurably(this.#file(name), Buffer.from(value))
  }

  async remove(name: string): Promise<void> {
    await rm(this.#file(name), { force: true })
  }

  /** @throws StorageError SECRET_EXPOSED when others may read one */
  async readAll(): Promise<Map<string, string>> {
    const all = new Map<string, string>()
    for (const name of await readdir(await makeFolder(this.#directory))) {
      if (name.endsWith('.tmp')) continue
      const file = this.#file(name)
      const { mode } = await stat(file)
      if ((mode & 0o077) !== 0) {
        throw new StorageError('SECRET_EXPOSED', {
          op: 'agent',
          object: file,
          hint: `Others may read this secret. Make the pairing anew if they did; then: chmod 600 ${file}`,
        })
      }
      all.set(name, await readFile(file, 'utf8'))
    }
    return all
  }

  #file(name: string): string {
    return path.join(this.#directory, name)
  }
}

import { constants } from 'node:fs'
import { open, readdir, rm } from 'node:fs/promises'
import path from 'node:path'
import { makeFolder, writeDurably } from '../block/durable-file.js'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { whyStrangersMayChange } from '../block/strangers.js'

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

  /** @throws StorageError SECRET_EXPOSED when others may read one, or put another in its place */
  async readAll(): Promise<Map<string, string>> {
    const all = new Map<string, string>()
    for (const name of await readdir(await makeFolder(this.#directory))) {
      if (!name.endsWith('.tmp')) all.set(name, await readSecret(this.#file(name)))
    }
    return all
  }

  #file(name: string): string {
    return path.join(this.#directory, name)
  }
}

/** What is looked at is what is read: the name may lead elsewhere a moment later. */
async function readSecret(file: string): Promise<string> {
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch((error) => {
    throw errnoOf(error) === 'ELOOP' ? exposed(file, 'it is a link', 'Remove the link.') : error
  })
  try {
    const facts = await handle.stat()
    const { mode } = facts
    const why = facts.isFile() ? whyStrangersMayChange(facts) : 'it is no file'
    if (why === undefined && (mode & 0o077) === 0) return await handle.readFile('utf8')
    const hint = `Make the pairing anew if others have seen it; then: chown root ${file}; chmod 600 ${file}`
    throw exposed(file, why ?? 'others may read it', hint)
  } finally {
    await handle.close()
  }
}

function exposed(object: string, cause: string, hint: string): StorageError {
  return new StorageError('SECRET_EXPOSED', { op: 'agent', object, cause, hint })
}

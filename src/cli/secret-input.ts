import { open } from 'node:fs/promises'
import type { Context } from './command.js'
import { CommandFailure } from './failure.js'

/** A pairing string or password is far shorter. */
const LIMIT_BYTES = 64 * 1024

/** A secret from a file or, for `-`, from stdin; without the line's end. @throws CommandFailure SECRET_NOT_READ */
export async function readSecret(context: Context, op: string, source: string): Promise<string> {
  const text = source === '-' ? await context.terminal.readInput(LIMIT_BYTES) : await readFile(op, source)
  const secret = text.replace(/\r?\n$/, '')
  if (secret === '' || text.length > LIMIT_BYTES) {
    throw refusal(op, source, 'it is empty or no secret of this kind', 'Put the secret into it, on one line.')
  }
  return secret
}

async function readFile(op: string, file: string): Promise<string> {
  try {
    const handle = await open(file, 'r')
    try {
      const { mode, size } = await handle.stat()
      if ((mode & 0o170000) === 0o100000 && (mode & 0o077) !== 0) {
        throw refusal(op, file, 'other users may read it', `It holds a secret: chmod 600 ${file}`)
      }
      if (size > LIMIT_BYTES) return ''
      return await handle.readFile('utf8')
    } finally {
      await handle.close()
    }
  } catch (error) {
    if (error instanceof CommandFailure) throw error
    throw refusal(op, file, (error as Error).message, 'Give a file that this user may read.')
  }
}

function refusal(op: string, object: string, what: string, hint: string): CommandFailure {
  return new CommandFailure({
    code: 'SECRET_NOT_READ',
    op,
    object,
    message: `${op} ${object}: SECRET_NOT_READ (${what})`,
    hint,
  })
}

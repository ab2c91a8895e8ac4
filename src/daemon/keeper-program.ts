import { execFile } from 'node:child_process'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import type { KeptDeviceView } from '../api/agent-operations.js'
import { StorageError } from '../block/storage-error.js'

const program = fileURLToPath(new URL('../../../build/Release/tidemark_keeper', import.meta.url))
/** It answers at once, or gives up after 5 s. */
const answerMs = 20_000
/** Exit codes of the program. */
const noKeeper = 3
const noDevice = 4
const why: Record<number, string> = {
  5: 'The keeper there was begun by another version of tidemark, which lists it.',
  6: 'The keeper there lives and does not answer (is it stopped?). Hosts wait until it goes on.',
}

/**
 * The devices that the keeper of this state directory holds; none when no keeper is there. Needs no agent.
 * @throws StorageError KEEPER_FAILED
 */
export async function listKept(stateDirectory: string): Promise<KeptDeviceView[]> {
  const { code, stdout } = await ask('--list', stateDirectory)
  if (code === noKeeper) return []
  if (code !== 0) throw failed(stateDirectory, code)
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line): KeptDeviceView => {
      const [name = '', device = '', sizeBytes, access, state] = line.split('\t')
      const waits = state === 'waits' ? 'waits' : 'served'
      return { name, device, sizeBytes: Number(sizeBytes), readOnly: access === 'ro', state: waits }
    })
}

/**
 * End the connection of a device: whoever waits for it gets I/O errors. Needs no agent, and no keeper that answers.
 * @throws StorageError NO_SUCH_DEVICE, KEEPER_FAILED
 */
export async function abortKept(stateDirectory: string, name: string): Promise<void> {
  const { code } = await ask('--abort', stateDirectory, name, path.resolve(stateDirectory, 'run', name))
  if (code === 0) return
  if (code !== noKeeper && code !== noDevice) throw failed(stateDirectory, code)
  throw new StorageError('NO_SUCH_DEVICE', {
    op: 'keeper abort',
    object: name,
    hint: `No device of this name is held in ${path.resolve(stateDirectory)}. See: tidemark keeper list`,
  })
}

function ask(...parameters: string[]): Promise<{ code: number; stdout: string }> {
  return new Promise((resolve) => {
    const child = execFile(program, parameters, { timeout: answerMs }, (error, stdout) => {
      resolve({ code: error ? (child.exitCode ?? -1) : 0, stdout })
    })
  })
}

function failed(object: string, code: number): StorageError {
  return new StorageError('KEEPER_FAILED', {
    op: 'keeper',
    object,
    hint: why[code]
      ? `${why[code]} To let go of a host: tidemark keeper abort NAME`
      : `${program} cannot be run. Build it: node tools/build-addon.mjs`,
  })
}

import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { StorageError } from '../block/storage-error.js'
import { transferFault } from './faults.js'
import { TEST_FOLDER } from './remote-name.js'
import type { Transport, TransportTest } from './transport.js'

const PROBE_BYTES = 4096

/**
 * Write, list, read back and remove a small file.
 *
 * @param endpoint where it goes, without secrets
 * @throws StorageError with the exact fault, also where put and its like would say LINK_DOWN
 */
export async function testTransport(
  transport: Omit<Transport, 'test' | 'close'>,
  endpoint: string,
  signal: AbortSignal,
): Promise<TransportTest> {
  const name = `probe-${randomBytes(6).toString('hex')}`
  const scratch = await mkdtemp(path.join(os.tmpdir(), 'tidemark-test-'))
  const started = performance.now()
  try {
    // Every byte value: a server that changes line ends is found out here.
    const content = Buffer.from(Array.from({ length: PROBE_BYTES }, (_, index) => index & 255))
    const local = path.join(scratch, name)
    await writeFile(local, content)
    await transport.put(TEST_FOLDER, name, local, { signal })
    const files = await transport.list(TEST_FOLDER, signal)
    const back = await transport.read(TEST_FOLDER, name, PROBE_BYTES, signal)
    await transport.remove(TEST_FOLDER, name, signal)
    const listed = files.some((file) => file.name === name && file.lengthBytes === PROBE_BYTES)
    if (!listed || !back?.equals(content)) {
      throw transferFault('PROTOCOL_ERROR', 'test', endpoint, 'the file it gave back is not the file it was sent')
    }
    return { endpoint, roundTripMs: Math.round(performance.now() - started) }
  } catch (error) {
    const exact = error instanceof StorageError && error.code === 'LINK_DOWN' && error.cause
    throw exact instanceof StorageError ? exact : error
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

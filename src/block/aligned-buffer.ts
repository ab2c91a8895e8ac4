import { createRequire } from 'node:module'

/** What O_DIRECT asks of memory, places and lengths: no disk in use asks for more. */
export const ALIGNMENT_BYTES = 4096

const native: { misalignment(bytes: Buffer): number } = createRequire(import.meta.url)(
  '../../../build/Release/tidemark_file.node',
)

/** Memory of any content. */
export function alignedBuffer(lengthBytes: number): Buffer {
  const whole = Buffer.allocUnsafeSlow(lengthBytes + ALIGNMENT_BYTES)
  const from = (ALIGNMENT_BYTES - native.misalignment(whole)) % ALIGNMENT_BYTES
  return whole.subarray(from, from + lengthBytes)
}

export function isAligned(bytes: Buffer): boolean {
  return native.misalignment(bytes) === 0
}

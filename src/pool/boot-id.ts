import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'

/** 16 bytes that the kernel makes anew at each boot: page cache survives exactly as long as this stays the same. */
export async function bootId(): Promise<Buffer> {
  const text = await readFile('/proc/sys/kernel/random/boot_id', 'utf8')
  const bytes = Buffer.from(text.replaceAll('-', '').trim(), 'hex')
  assert.equal(bytes.length, 16, 'a boot id')
  return bytes
}

import path from 'node:path'
import type { Typed } from './command.js'
import { UsageError } from './failure.js'

/** One device of a pool, as the API takes it. */
export interface TypedDevice {
  readonly path: string
  readonly kind: 'file' | 'raw'
  size?: string
}

/**
 * `--file A --size 1GiB --file B --size 2GiB --device /dev/sdb`: a size belongs to what stands before it. One size alone
 * is that of every file.
 *
 * @throws UsageError
 */
export function typedDevices({ sequence }: Pick<Typed, 'sequence'>): TypedDevice[] {
  const devices: TypedDevice[] = []
  const sizes: string[] = []
  for (const { name, value } of sequence) {
    const last = devices.at(-1)
    if (name !== 'size') {
      devices.push({ path: path.resolve(value), kind: name === 'file' ? 'file' : 'raw' })
      continue
    }
    sizes.push(value)
    if (last?.size !== undefined) throw new UsageError(`${last.path} has two sizes`)
    if (last) last.size = value
  }
  if (devices.length === 0) throw new UsageError('give a --device, or a --file with its --size')
  const [only] = sizes
  for (const device of devices) {
    if (device.kind === 'raw' || device.size !== undefined) continue
    if (sizes.length !== 1) throw new UsageError(`the file ${device.path} has no --size`)
    device.size = only!
  }
  if (sizes.length > devices.filter(({ size }) => size !== undefined).length) {
    throw new UsageError('a --size stands before the --file it belongs to')
  }
  return devices
}

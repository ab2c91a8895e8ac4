const pageBytes = 65_536

/** Part of every Node, though not of its types. */
declare const WebAssembly: { Memory: new (size: { initial: number }) => { readonly buffer: ArrayBuffer } }

/** A buffer that begins at a page of memory, as O_DIRECT wants it; Node's own begin anywhere. */
export function alignedBuffer(lengthBytes: number): Buffer {
  const { buffer } = new WebAssembly.Memory({ initial: Math.ceil(lengthBytes / pageBytes) })
  return Buffer.from(buffer, 0, lengthBytes)
}

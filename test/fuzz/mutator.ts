import type { Random } from '../pool/model/random.js'
import { INPUT_LIMIT } from './target.js'

const bytes = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff]
const words = [0, 1, 0x7fff, 0x8000, 0xffff]
const longs = [0, 1, 511, 512, 4096, 0x7fffffff, 0x80000000, 0xffffffff]
const quads = [
  0n,
  1n,
  512n,
  2n ** 32n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 53n + 512n,
  2n ** 63n,
  2n ** 64n - 512n,
  2n ** 64n - 1n,
]

type Mutation = (random: Random, input: Buffer, others: readonly Buffer[], dictionary: readonly Buffer[]) => Buffer

/** One to eight changes, one after the other. */
export function mutate(
  random: Random,
  input: Buffer,
  others: readonly Buffer[],
  dictionary: readonly Buffer[],
): Buffer {
  let result: Buffer = Buffer.from(input)
  for (let count = 1 << random.below(4); count > 0; count -= 1) {
    const changed = random.pick(mutations)(random, result, others, dictionary)
    result = changed.length > INPUT_LIMIT ? changed.subarray(0, INPUT_LIMIT) : changed
  }
  return result
}

/** A place for a value of so many bytes; often one where fields lie. Undefined when there is no room. */
function placeFor(random: Random, input: Buffer, lengthBytes: number): number | undefined {
  if (input.length < lengthBytes) return undefined
  const at = random.below(input.length - lengthBytes + 1)
  return random.chance(0.5) ? at - (at % lengthBytes) : at
}

function change(lengthBytes: number, write: (random: Random, input: Buffer, at: number) => void): Mutation {
  return (random, input) => {
    const at = placeFor(random, input, lengthBytes)
    if (at !== undefined) write(random, input, at)
    return input
  }
}

const mutations: readonly Mutation[] = [
  change(1, (random, input, at) => {
    input[at]! ^= 1 << random.below(8)
  }),
  change(1, (random, input, at) => {
    input[at] = random.below(256)
  }),
  change(1, (random, input, at) => {
    input[at] = random.pick(bytes)
  }),
  change(1, (random, input, at) => {
    input[at] = (input[at]! + random.between(-16, 16)) & 255
  }),
  change(2, (random, input, at) => input.writeUInt16LE(random.pick(words), at)),
  change(4, (random, input, at) => input.writeUInt32LE(random.pick(longs), at)),
  change(4, (random, input, at) => input.writeUInt32LE((input.readUInt32LE(at) + random.between(-64, 64)) >>> 0, at)),
  change(8, (random, input, at) => input.writeBigUInt64LE(random.pick(quads), at)),
  change(8, (random, input, at) =>
    input.writeBigUInt64LE(BigInt.asUintN(64, input.readBigUInt64LE(at) + BigInt(random.between(-4096, 4096))), at),
  ),
  // A piece removed, doubled, moved, filled or cut off.
  (random, input) => {
    const [from, to] = range(random, input)
    return Buffer.concat([input.subarray(0, from), input.subarray(to)])
  },
  (random, input) => {
    const [from, to] = range(random, input)
    return Buffer.concat([input.subarray(0, to), input.subarray(from)])
  },
  (random, input) => {
    const [from, to] = range(random, input)
    const at = random.below(input.length + 1)
    return Buffer.concat([input.subarray(0, at), input.subarray(from, to), input.subarray(at)])
  },
  (random, input) => {
    const [from, to] = range(random, input)
    input.fill(random.pick(bytes), from, to)
    return input
  },
  (random, input) => input.subarray(0, random.below(input.length + 1)),
  (random, input) => {
    const piece = Buffer.from(Array.from({ length: 1 + random.below(16) }, () => random.below(256)))
    return inserted(random, input, piece)
  },
  // A piece of another input, in place of one here or between two.
  (random, input, others) => {
    const other = random.pick(others)
    const [from, to] = range(random, other)
    const piece = other.subarray(from, to)
    if (random.chance(0.5)) return inserted(random, input, piece)
    const at = random.below(input.length + 1)
    return Buffer.concat([input.subarray(0, at), piece, input.subarray(Math.min(input.length, at + piece.length))])
  },
  (random, input, _, dictionary) =>
    dictionary.length === 0 ? input : inserted(random, input, random.pick(dictionary)),
]

function inserted(random: Random, input: Buffer, piece: Buffer): Buffer {
  const at = random.below(input.length + 1)
  return Buffer.concat([input.subarray(0, at), piece, input.subarray(at)])
}

/** Short ones more often than long ones. */
function range(random: Random, input: Buffer): [number, number] {
  const longest = random.chance(0.7) ? 64 : input.length
  const from = random.below(input.length + 1)
  return [from, Math.min(input.length, from + random.below(longest + 1))]
}

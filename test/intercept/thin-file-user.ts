import { strict as assert } from 'node:assert'
import { randomBytes } from 'node:crypto'
import { closeSync, fdatasyncSync, fstatSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { KiB, MiB } from '../../src/block/units.js'
import { fileCalls } from '../../src/intercept/file-calls.js'

/**
 * Uses a served file as a program would: in a worker thread (the path is its data), or as a process (the path is its
 * argument). Ends with an error when something is not as it should be.
 */
function readBack(fd: number, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  assert.equal(readSync(fd, bytes, 0, length, offset), length)
  return bytes
}

/** Calls to write that this process has made. */
function writeCalls(): number {
  return Number(/^syscw: (\d+)$/m.exec(readFileSync('/proc/self/io', 'latin1'))![1])
}

/** Blocks that are there and new ones; whole pages, and what is smaller, larger or begins between two. */
function writeManyAndReadBack(begin: number): void {
  const expected = Buffer.alloc(8 * MiB)
  const payloads: Buffer[] = []
  const offsets: number[] = []
  const add = (offset: number, bytes: Buffer): void => {
    payloads.push(bytes)
    offsets.push(begin + offset)
    bytes.copy(expected, offset)
  }
  const pages = 1000
  // Every other page, from the last to the first.
  for (let at = pages - 1; at >= 0; at--) add(at * 8 * KiB, randomBytes(4 * KiB))
  const before = writeCalls()
  fileCalls.writeMany(fd, payloads, offsets)
  // The agent itself, of which a worker thread is one, writes its answers.
  if (!parentPort) assert.ok(writeCalls() - before < pages / 10, 'not a call for each')
  assert.ok(readBack(fd, begin, expected.length).equals(expected))

  payloads.length = 0
  offsets.length = 0
  for (const [offset, length] of [
    [4 * KiB, 512],
    [12 * KiB + 512, 512],
    [20 * KiB, 4 * KiB],
    [64 * KiB, 8 * KiB],
    [72 * KiB, 12 * KiB],
    [100 * KiB, 16 * KiB],
    [128 * KiB, 20 * KiB],
    [256 * KiB, 700 * KiB],
    [MiB + 77, 4 * KiB],
  ] as const) {
    add(offset, randomBytes(length))
  }
  fileCalls.writeMany(fd, payloads, offsets)
  assert.ok(readBack(fd, begin, expected.length).equals(expected), 'of any kind')

  const one = randomBytes(4 * KiB)
  const places = [begin, size + 4 * KiB, begin + 4 * KiB]
  assert.throws(() => fileCalls.writeMany(fd, [one, one, one], places), 'one of them is beyond the end')
  one.copy(expected, 0)
  one.copy(expected, 4 * KiB)
  assert.ok(readBack(fd, begin, expected.length).equals(expected), 'the others are written')
  fileCalls.punchHole(fd, begin, expected.length)
}

const path = (parentPort ? workerData : process.argv[2]) as string
const fd = openSync(path, 'r+')
const { size } = fstatSync(fd)
assert.equal(fileCalls.nextData(fd, 0), -1, 'nothing is there yet')

// Memory that does not begin on a page: the kernel then cuts where its pages end.
const large = randomBytes(3 * MiB + 512).subarray(101, 101 + 3 * MiB)
assert.equal(writeSync(fd, large, 0, large.length, 8 * MiB), large.length)
assert.ok(readBack(fd, 8 * MiB, large.length).equals(large))

const odd = randomBytes(1001)
assert.equal(writeSync(fd, odd, 0, odd.length, 9 * MiB + 77), odd.length)
odd.copy(large, MiB + 77)
assert.ok(readBack(fd, 9 * MiB, 70_000).equals(large.subarray(MiB, MiB + 70_000)))
assert.equal(writeSync(fd, odd, 0, odd.length, 4 * MiB + 5), odd.length)
const around = Buffer.alloc(64 * KiB)
odd.copy(around, 5)
assert.ok(readBack(fd, 4 * MiB, around.length).equals(around), 'zeros around it')

writeManyAndReadBack(16 * MiB)

assert.equal(fileCalls.nextData(fd, 0), 4 * MiB)
assert.equal(fileCalls.nextData(fd, 5 * MiB), 8 * MiB)
fileCalls.punchHole(fd, 8 * MiB, 2 * MiB)
assert.ok(readBack(fd, 8 * MiB, 2 * MiB).equals(Buffer.alloc(2 * MiB)))
assert.equal(fileCalls.nextData(fd, 5 * MiB), 10 * MiB)
fdatasyncSync(fd)
assert.equal(readSync(fd, Buffer.alloc(4096), 0, 4096, size - 100), 100, 'a read ends with the file')
fileCalls.punchHole(fd, 0, size)
assert.equal(fileCalls.nextData(fd, 0), -1)
closeSync(fd)

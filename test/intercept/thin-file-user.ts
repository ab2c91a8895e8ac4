import { strict as assert } from 'node:assert'
import { randomBytes } from 'node:crypto'
import { closeSync, fdatasyncSync, fstatSync, openSync, readSync, writeSync } from 'node:fs'
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

import { randomBytes, randomInt } from 'node:crypto'
import t from 'tap'
import { splitZeroBlocks, ZERO_BLOCK_BYTES } from '../../src/replication/zero-blocks.js'

const block = ZERO_BLOCK_BYTES

t.test('a payload of data alone is one piece, of zeros alone one zero piece', async (t) => {
  t.same(splitZeroBlocks(0, Buffer.alloc(4 * block, 1)), [{ zero: false, start: 0, lengthBytes: 4 * block }])
  t.same(splitZeroBlocks(2 ** 40, Buffer.alloc(4 * block)), [{ zero: true, start: 0, lengthBytes: 4 * block }])
  t.same(splitZeroBlocks(0, Buffer.alloc(0)), [])
})

t.test('blocks are aligned on the volume; head and tail stay data', async (t) => {
  t.same(splitZeroBlocks(512, Buffer.alloc(2 * block)), [
    { zero: false, start: 0, lengthBytes: 3584 },
    { zero: true, start: 3584, lengthBytes: block },
    { zero: false, start: 3584 + block, lengthBytes: 512 },
  ])
  t.same(splitZeroBlocks(512, Buffer.alloc(1024)), [{ zero: false, start: 0, lengthBytes: 1024 }])
})

t.test('one byte anywhere in a block makes it data', async (t) => {
  const payload = Buffer.alloc(block)
  for (let at = 0; at < block; at += 1) {
    payload[at] = 1
    if (splitZeroBlocks(0, payload)[0]?.zero !== false) t.fail(`byte ${at}`)
    payload[at] = 0
  }
  t.equal(splitZeroBlocks(0, payload)[0]?.zero, true)
})

t.test('pieces cover the payload, alternate, and a zero piece holds zeros only', async (t) => {
  const data = randomBytes(block)
  for (let round = 0; round < 3000; round += 1) {
    const offset = randomInt(64) * 512
    const payload = Buffer.alloc(randomInt(1, 80) * 512)
    for (let at = 0; at < payload.length; at += 512) if (randomInt(12) === 0) data.copy(payload, at, 0, 512)
    let at = 0
    let before: boolean | undefined
    for (const { zero, start, lengthBytes } of splitZeroBlocks(offset, payload)) {
      const isZero = payload.subarray(start, start + lengthBytes).every((byte) => byte === 0)
      const aligned = (offset + start) % block === 0 && lengthBytes % block === 0
      if (start !== at || lengthBytes === 0 || zero === before || (zero && !(isZero && aligned)))
        t.fail(`round ${round}`)
      at += lengthBytes
      before = zero
    }
    if (at !== payload.length) t.fail(`round ${round}: ${at} of ${payload.length}`)
  }
  t.pass('3,000 payloads')
})

t.test('the speed of it', async (t) => {
  for (const [name, payload] of [
    ['data', randomBytes(2 ** 20)],
    ['zeros', Buffer.alloc(2 ** 20)],
  ] as const) {
    const from = performance.now()
    for (let round = 0; round < 200; round += 1) splitZeroBlocks(0, payload)
    t.comment(`${name}: ${(200_000 / (performance.now() - from)).toFixed(0)} MiB/s`)
  }
})

import { randomBytes, randomInt } from 'node:crypto'
import t from 'tap'
import { SENT_BLOCK_BYTES, SentContent } from '../../src/replication/sent-content.js'

const block = SENT_BLOCK_BYTES

t.test('a block is identical once remembered, until it changes or is forgotten', async (t) => {
  const sent = new SentContent(1024)
  const content = randomBytes(block)
  t.notOk(sent.isIdentical(0, 8192, content), 'nothing is known at the beginning')
  sent.remember(0, 8192, content)
  t.ok(sent.isIdentical(0, 8192, Buffer.from(content)))
  t.notOk(sent.isIdentical(1, 8192, content), 'another volume')
  t.notOk(sent.isIdentical(0, 12288, content), 'another block')
  t.notOk(sent.isIdentical(0, 8192 + 2 ** 44, content), 'a block 2^32 blocks away')
  content[4095]! ^= 1
  t.notOk(sent.isIdentical(0, 8192, content), 'one bit')
  content[4095]! ^= 1
  sent.forget(0, 8192 + 512, 512)
  t.notOk(sent.isIdentical(0, 8192, content), 'overwritten in part')
  sent.remember(0, 8192, content)
  sent.forget(0, 4096, 4096)
  sent.forget(0, 12288, 4096)
  t.ok(sent.isIdentical(0, 8192, content), 'its neighbours are not it')
  sent.forget(0, 0, 2 ** 50)
  t.notOk(sent.isIdentical(0, 8192, content), 'a trim of everything')
  sent.remember(0, 8192, content)
  sent.forget(1, 0, 2 ** 50)
  t.ok(sent.isIdentical(0, 8192, content), 'a trim of another volume')
  sent.clear()
  t.notOk(sent.isIdentical(0, 8192, content))
})

t.test('sift leaves out whole blocks that are there already and nothing else', async (t) => {
  const sent = new SentContent(1024)
  const payload = randomBytes(4 * block)
  t.same(sent.sift(3, 0, payload), [{ start: 0, lengthBytes: 4 * block }])
  t.same(sent.sift(3, 0, payload), [])
  payload[block]! ^= 1
  payload[2 * block]! ^= 1
  t.same(sent.sift(3, 0, payload), [{ start: block, lengthBytes: 2 * block }])
  t.same(sent.sift(3, 512, payload.subarray(512)), [{ start: 0, lengthBytes: block - 512 }])
  t.same(sent.sift(3, 0, payload.subarray(0, block)), [{ start: 0, lengthBytes: block }], 'partial writes forget')
  t.same(sent.sift(3, 1024, Buffer.alloc(512)), [{ start: 0, lengthBytes: 512 }], 'less than a block')
})

t.test('what sift leaves out is always what the far side holds', async (t) => {
  const sent = new SentContent(16)
  const blocks = 40
  const source = [0, 1].map(() => Buffer.alloc(blocks * block))
  const far = [0, 1].map(() => Buffer.alloc(blocks * block))
  const contents = [0, 1, 2].map((byte) => Buffer.alloc(blocks * block, byte))
  let left = 0
  for (let round = 0; round < 20_000; round += 1) {
    const volume = randomInt(2)
    const whole = randomInt(3) > 0
    const unit = whole ? block : 512
    const first = randomInt((blocks * block) / unit)
    const start = first * unit
    const length = Math.min(unit * randomInt(1, 6), blocks * block - start)
    if (randomInt(10) === 0) {
      source[volume]!.fill(0, start, start + length)
      far[volume]!.fill(0, start, start + length)
      sent.forget(volume, start, length)
    } else {
      contents[randomInt(3)]!.copy(source[volume]!, start, 0, length)
      const payload = source[volume]!.subarray(start, start + length)
      const pieces = sent.sift(volume, start, payload)
      for (const piece of pieces) {
        payload.copy(far[volume]!, start + piece.start, piece.start, piece.start + piece.lengthBytes)
        left -= piece.lengthBytes
      }
      left += length
    }
    if (!source[volume]!.equals(far[volume]!)) {
      t.fail(`round ${round}: the far side differs`)
      return
    }
  }
  t.ok(left > 0, `${left} bytes were left out`)
})

t.test('the speed of it', async (t) => {
  const sent = new SentContent()
  const payload = randomBytes(2 ** 20)
  sent.sift(0, 0, payload)
  const from = performance.now()
  for (let round = 0; round < 100; round += 1) sent.sift(0, 0, payload)
  t.comment(`${(100_000 / (performance.now() - from)).toFixed(0)} MiB/s`)
})

t.test('a table is as large as the volumes it is for, up to its limit', async (t) => {
  const small = SentContent.for(1024 * 1024)
  t.equal(small.memoryBytes, 256 * 40)
  const content = Array.from({ length: 256 }, () => randomBytes(block))
  for (const [index, bytes] of content.entries()) small.remember(0, index * block, bytes)
  t.ok(
    content.every((bytes, index) => small.isIdentical(0, index * block, bytes)),
    'every block has its place',
  )
  t.equal(SentContent.for(2 ** 44).memoryBytes, 262_144 * 40)
  t.ok(SentContent.for(512).memoryBytes > 0)
})

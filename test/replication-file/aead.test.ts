import { createCipheriv, randomBytes } from 'node:crypto'
import t from 'tap'
import { open, seal, section, TAG_BYTES } from '../../src/replication-file/aead.js'

const lengths = [0, 1, 15, 16, 17, 4095, 4096, 70_001, 1 << 20]

t.test('a sealed text is what another AES-256-GCM makes of it, and can be opened', (t) => {
  for (const length of lengths) {
    const [key, aad, plain] = [randomBytes(32), randomBytes(length % 257), randomBytes(length)]
    const { body, tag } = seal(key, section.frame, 7, aad, plain)
    const nonce = Buffer.from('010000000700000000000000', 'hex')
    const other = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
    other.setAAD(aad)
    const expected = Buffer.concat([other.update(plain), other.final()])
    t.ok(body.equals(expected), `text of ${length} bytes`)
    t.ok(tag.equals(other.getAuthTag()), `tag of ${length} bytes`)
    t.ok(open(key, section.frame, 7, aad, body, tag)?.equals(plain), 'it opens')
    tag[0]! ^= 1
    t.equal(open(key, section.frame, 7, aad, body, tag), undefined, 'with another tag it does not')
  }
  t.end()
})

t.test('a text is sealed into the place it is given, and not a byte beyond', (t) => {
  const area = Buffer.alloc(1024, 0xee)
  const [key, aad, plain] = [randomBytes(32), randomBytes(256), randomBytes(512)]
  const { body, tag } = seal(key, section.index, 0, aad, plain, area.subarray(100, 612))
  t.equal(body.buffer, area.buffer)
  t.ok(area.subarray(0, 100).every((byte) => byte === 0xee))
  t.ok(area.subarray(612).every((byte) => byte === 0xee))
  t.ok(open(key, section.index, 0, aad, area.subarray(100, 612), tag)?.equals(plain))
  t.throws(() => seal(key, section.index, 0, aad, plain, area.subarray(0, 511)), { code: 'EINVAL' }, 'too little room')
  t.throws(() => seal(key.subarray(1), section.index, 0, aad, plain), { code: 'EINVAL' }, 'half a key')
  t.end()
})

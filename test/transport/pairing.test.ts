import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { StorageError } from '../../src/block/storage-error.js'
import { parseFtpUrl } from '../../src/transport/ftp-url.js'
import { describeEndpoint, type Endpoint, newPairing } from '../../src/transport/pairing.js'
import { bearerToken, isSameToken } from '../../src/transport/pairing-keys.js'
import { formatPairing, parsePairing } from '../../src/transport/pairing-string.js'

const ftp: Endpoint = {
  kind: 'ftp',
  host: 'ftp.example.org',
  port: 2121,
  user: 'mirror',
  password: 'pä ss/"word',
  directory: 'in/box',
  tls: 'explicit',
}
const endpoints: Endpoint[] = [
  { kind: 'folder', directory: '/mnt/disk ü' },
  { kind: 'https', host: '2001:db8::1', port: 7300, fingerprint: 'ab'.repeat(32) },
  { kind: 'https', host: 'controller-b.example', port: 1, fingerprint: '01'.repeat(32) },
  ftp,
  { ...ftp, tls: 'none', directory: '', password: '' },
]

await t.test('a pairing survives being printed and pasted, also broken over lines', async (t) => {
  for (const endpoint of endpoints) {
    const pairing = newPairing(endpoint)
    const text = formatPairing(pairing)
    t.match(text, /^tidemark1-[A-Za-z0-9_-]+$/)
    t.same(parsePairing(text), pairing)
    t.same(parsePairing(`  ${text.slice(0, 40)}\n${text.slice(40)}\r\n`), pairing)
  }
})

await t.test('a wrong version is told from a wrong paste, and neither is quoted', async (t) => {
  const text = formatPairing(newPairing(ftp))
  const hintOf = (pasted: string): string => {
    try {
      parsePairing(pasted)
    } catch (error) {
      if (!(error instanceof StorageError)) throw error
      t.equal(error.code, 'BAD_PAIRING')
      if (pasted.length > 20) t.notOk(JSON.stringify(error).includes(pasted.slice(10, 30)))
      return error.hint
    }
    return t.fail('it was taken') ? '' : ''
  }
  t.match(hintOf(''), /whole line/)
  t.match(hintOf('hello'), /whole line/)
  t.match(hintOf(text.replace('tidemark1', 'tidemark2')), /version/)
  t.match(hintOf(text.slice(0, -1)), /missing or changed/)
  t.match(hintOf(`${text}A`), /missing or changed/)
  t.match(hintOf(text.slice(0, 20) + text.slice(21)), /missing or changed/)
  t.match(hintOf(text.replace(/.$/, '*')), /missing or changed/)
  t.match(hintOf('tidemark1-'), /missing or changed/)
  t.match(hintOf('x'.repeat(10_000_000)), /too long/)
  for (let index = 10; index < text.length; index++) {
    const other = text[index] === 'A' ? 'B' : 'A'
    hintOf(text.slice(0, index) + other + text.slice(index + 1))
  }
})

await t.test('whatever is pasted is a pairing or BAD_PAIRING', async () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.uint8Array({ maxLength: 300 }).map((bytes) => `tidemark1-${Buffer.from(bytes).toString('base64url')}`),
      ),
      (text) => {
        try {
          parsePairing(text)
        } catch (error) {
          if (!(error instanceof StorageError) || error.code !== 'BAD_PAIRING') throw error
        }
      },
    ),
  )
})

await t.test('an endpoint that could inject a command or leave its directory makes no pairing', async (t) => {
  const bad: Endpoint[] = [
    { ...ftp, user: 'a\r\nDELE x' },
    { ...ftp, password: 'a\nb' },
    { ...ftp, directory: '../x' },
    { ...ftp, directory: 'a/-la' },
    { ...ftp, directory: 'a\r\nb' },
    { ...ftp, host: 'a b' },
    { ...ftp, host: '-x' },
    { ...ftp, port: 0 },
    { ...ftp, port: 65_536 },
    { ...ftp, user: '' },
    { kind: 'folder', directory: 'relative' },
    { kind: 'folder', directory: '/a/../b' },
    { kind: 'https', host: 'h', port: 1, fingerprint: 'AB'.repeat(32) },
  ]
  for (const endpoint of bad) t.throws(() => formatPairing(newPairing(endpoint)), { code: 'BAD_ENDPOINT' })
})

await t.test('the token is of one pairing alone and is not its secret', async (t) => {
  const [one, other] = [newPairing(ftp), newPairing(ftp)]
  t.match(bearerToken(one), /^[0-9a-f]{64}$/)
  t.not(bearerToken(one), bearerToken(other))
  t.not(bearerToken(one), one.secret.toString('hex'))
  t.ok(isSameToken(bearerToken(one), bearerToken({ ...one })))
  t.notOk(isSameToken(bearerToken(one), bearerToken({ ...one, id: randomBytes(16) })))
  t.notOk(isSameToken('a', ''))
})

await t.test('an endpoint is described without its password', async (t) => {
  t.same(endpoints.map(describeEndpoint), [
    '/mnt/disk ü',
    'https://[2001:db8::1]:7300',
    'https://controller-b.example:1',
    'ftpes://mirror@ftp.example.org:2121/in/box',
    'ftp://mirror@ftp.example.org:2121/',
  ])
})

await t.test('an FTP URL is read as people write it', async (t) => {
  const base = { kind: 'ftp', host: 'h', port: 21, user: 'u', password: 'p', directory: '', tls: 'none' }
  t.same(parseFtpUrl('ftp://u:p@h'), base)
  t.same(parseFtpUrl('ftp://u:p@h/a/b/'), { ...base, directory: 'a/b' })
  t.same(parseFtpUrl('ftp://u:p@h//srv/x'), { ...base, directory: '/srv/x' })
  t.same(parseFtpUrl('ftp://u:a%40b%2F@h:2121/x%20y'), { ...base, port: 2121, password: 'a@b/', directory: 'x y' })
  t.same(parseFtpUrl('ftps://u:p@h'), { ...base, port: 990, tls: 'implicit' })
  t.same(parseFtpUrl('ftpes://u@[::1]', 'other'), { ...base, host: '::1', password: 'other', tls: 'explicit' })
  t.same(parseFtpUrl('ftp://h'), { ...base, user: 'anonymous', password: 'anonymous@' })
  const bad = [
    '',
    'h',
    'http://h',
    'ftp://',
    'ftp://u:p%0d%0aDELE@h',
    'ftp://h/a%0ab',
    'ftp://h/..%2fx',
    'ftp://h:99999',
    'ftp://h/?q',
    'ftp://u:p%zz@h',
  ]
  for (const url of bad) {
    t.throws(() => parseFtpUrl(url), { code: 'BAD_FTP_URL' }, url)
  }
  try {
    parseFtpUrl('ftp://u:sesame@h:99999')
  } catch (error) {
    t.notMatch(`${error}${JSON.stringify(error)}${(error as Error).cause}`, 'sesame')
  }
})

import { randomBytes } from 'node:crypto'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { fingerprintOf, makeCertificate } from '../../src/transport/certificate.js'
import { startReceiver } from '../../src/transport/https-receiver.js'
import { httpsTransport } from '../../src/transport/https-transport.js'
import { type HttpsEndpoint, newPairing } from '../../src/transport/pairing.js'
import { bearerToken } from '../../src/transport/pairing-keys.js'
import { startCuttingProxy } from '../fixtures/cutting-proxy.js'
import { mountSmallDisk } from '../fixtures/small-disk.js'
import { transportContract } from './transport-contract.js'

const never = new AbortController().signal
const certificate = await makeCertificate()
const fingerprint = fingerprintOf(certificate.cert)

async function makeSite(scratch: string, inbox = path.join(scratch, 'inbox')) {
  const endpointAt = (port: number): HttpsEndpoint => ({ kind: 'https', host: '127.0.0.1', port, fingerprint })
  const pairing = newPairing(endpointAt(1))
  const token = bearerToken(pairing)
  const arrivals = path.join(inbox, pairing.id.toString('hex'))
  await mkdir(arrivals, { recursive: true })
  const start = (port: number) =>
    startReceiver({
      host: '127.0.0.1',
      port,
      certificate,
      inbox,
      authorize: (id) => (id === pairing.id.toString('hex') ? token : undefined),
    })
  let receiver = await start(0)
  const { port } = receiver
  return {
    port,
    pairing,
    token,
    arrivals,
    open: (proxy?: { port: number }) => httpsTransport(endpointAt(proxy?.port ?? port), pairing.id, token),
    proxy: () => startCuttingProxy({ targetPort: port }),
    restart: {
      kill: () => receiver.close(),
      start: async () => {
        receiver = await start(port)
      },
    },
    close: () => receiver.close(),
  }
}

await transportContract('https', makeSite)

await t.test('each fault has its own code', async (t) => {
  const site = await makeSite(t.testdir())
  t.teardown(() => site.close())
  const { pairing, token, port } = site
  const faultOf = async (endpoint: Partial<HttpsEndpoint>, secret = token, timeouts = {}) => {
    const all: HttpsEndpoint = { kind: 'https', host: '127.0.0.1', port, fingerprint, ...endpoint }
    const transport = httpsTransport(all, pairing.id, secret, { timeouts })
    const error = await transport.test(AbortSignal.timeout(20_000)).catch((error: unknown) => error)
    await transport.close()
    t.notMatch(JSON.stringify(error) + String(error), secret)
    return error
  }
  t.match(await faultOf({}), { roundTripMs: Number })
  t.match(await faultOf({}, 'ab'.repeat(32)), { code: 'LOGIN_DENIED', retry: 'never' })
  t.match(await faultOf({ fingerprint: 'ab'.repeat(32) }), { code: 'TLS_FINGERPRINT', retry: 'never' })
  t.match(await faultOf({ port: 1 }), { code: 'CONNECTION_REFUSED', retry: 'later' })
  t.match(await faultOf({ host: 'no-such-host.invalid' }), { code: 'HOST_NOT_FOUND', retry: 'later' })
  const proxy = await site.proxy()
  t.teardown(() => proxy.close())
  proxy.blackHole()
  t.match(await faultOf({ port: proxy.port }, token, { connectMs: 300 }), { code: 'LINK_TIMEOUT', retry: 'later' })
})

await t.test('nobody but the paired agent ever sees the token', async (t) => {
  const scratch = t.testdir()
  const site = await makeSite(scratch)
  t.teardown(() => site.close())
  const impostor = await startReceiver({
    host: '127.0.0.1',
    port: 0,
    certificate: await makeCertificate(),
    inbox: path.join(scratch, 'impostor'),
    authorize: () => {
      t.fail('the impostor was shown a request')
      return undefined
    },
  })
  t.teardown(() => impostor.close())
  const transport = site.open(impostor)
  t.teardown(() => transport.close())
  await t.rejects(transport.list('ab'.repeat(16), never), { code: 'TLS_FINGERPRINT' })
})

await t.test('a full disk at the receiver is REMOTE_FULL, and the transfer goes on when there is room', async (t) => {
  const scratch = t.testdir()
  const disk = await mountSmallDisk(2 * 1024 * 1024)
  t.teardown(() => disk.unmount())
  const site = await makeSite(scratch, path.join(disk.directory, 'inbox'))
  t.teardown(() => site.close())
  const transport = site.open()
  t.teardown(() => transport.close())
  const folder = 'ab'.repeat(16)
  const [filler, file] = ['filler', 'file'].map((name) => path.join(scratch, name)) as [string, string]
  await writeFile(filler, randomBytes(1024 * 1024))
  await writeFile(file, randomBytes(1536 * 1024))
  await transport.put(folder, 'filler', filler, { signal: never })
  await t.rejects(transport.put(folder, 'file', file, { signal: never }), { code: 'REMOTE_FULL', retry: 'later' })
  t.same(await readdir(path.join(site.arrivals, folder)), ['filler'])
  await transport.remove(folder, 'filler', never)
  await transport.put(folder, 'file', file, { signal: never })
  t.same(await transport.list(folder, never), [{ name: 'file', lengthBytes: 1536 * 1024 }])
})

await t.test('a pairing that is withdrawn is LOGIN_DENIED from then on', async (t) => {
  const scratch = t.testdir()
  const pairing = newPairing({ kind: 'https', host: '127.0.0.1', port: 1, fingerprint })
  let token: string | undefined = bearerToken(pairing)
  const inbox = path.join(scratch, 'inbox')
  const receiver = await startReceiver({ host: '127.0.0.1', port: 0, certificate, inbox, authorize: () => token })
  t.teardown(() => receiver.close())
  const endpoint: HttpsEndpoint = { kind: 'https', host: '127.0.0.1', port: receiver.port, fingerprint }
  const transport = httpsTransport(endpoint, pairing.id, token)
  t.teardown(() => transport.close())
  const file = path.join(scratch, 'file')
  await writeFile(file, randomBytes(200_000))
  await transport.put('ab'.repeat(16), 'a', file, { signal: never })
  token = undefined
  await t.rejects(transport.put('ab'.repeat(16), 'a', file, { signal: never }), {
    code: 'LOGIN_DENIED',
    retry: 'never',
  })
  await t.rejects(transport.put('ab'.repeat(16), 'a', file, { signal: never }), {
    code: 'LOGIN_DENIED',
    retry: 'never',
  })
})

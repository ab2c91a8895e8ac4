/** What strangers, and paired agents gone bad, may try on the receiver. */
import { once } from 'node:events'
import { link, mkdir, readdir, readFile, symlink } from 'node:fs/promises'
import path from 'node:path'
import tls from 'node:tls'
import t, { type Test } from 'tap'
import type { AgentEvent } from '../../src/block/event-log.js'
import { makeCertificate } from '../../src/transport/certificate.js'
import { type ReceiverLimits, startReceiver } from '../../src/transport/https-receiver.js'

const certificate = await makeCertificate()
const pairing = 'ab'.repeat(16)
const token = 'cd'.repeat(32)
const folder = '12'.repeat(16)
const file = `/v1/${pairing}/${folder}/a.tmr`
const bearer = { authorization: `Bearer ${token}` }

async function start(t: Test, limits: Partial<ReceiverLimits> = {}, mayStore?: (id: string, bytes: number) => boolean) {
  const scratch = t.testdir({ inbox: {}, elsewhere: { secret: 'secret' } })
  const inbox = path.join(scratch, 'inbox')
  const events: Omit<AgentEvent, 'number' | 'time'>[] = []
  const receiver = await startReceiver({
    host: '127.0.0.1',
    port: 0,
    certificate,
    inbox,
    authorize: (id) => (id === pairing ? token : undefined),
    report: (event) => events.push(event),
    limits,
    ...(mayStore && { mayStore }),
  })
  t.teardown(() => receiver.close())
  return { receiver, scratch, inbox, events, arrivals: path.join(inbox, pairing, folder) }
}

async function connect(port: number): Promise<tls.TLSSocket> {
  const socket = tls.connect({ host: '127.0.0.1', port, rejectUnauthorized: false })
  socket.on('error', () => undefined)
  await once(socket, 'secureConnect')
  return socket
}

/** One request, byte for byte as written; the status of the answer, 0 for none. */
async function ask(
  port: number,
  method: string,
  target: string,
  headers: Record<string, string | number | string[]>,
  body: Buffer | string = '',
): Promise<{ status: number; text: string }> {
  const socket = await connect(port)
  const lines = Object.entries(headers).flatMap(([name, value]) => [value].flat().map((one) => `${name}: ${one}\r\n`))
  socket.write(`${method} ${target} HTTP/1.1\r\nHost: x\r\n${lines.join('')}\r\n`)
  socket.write(body)
  let text = ''
  socket.on('data', (bytes) => {
    text += bytes
    if (/^HTTP\/1\.1 \d{3}/.test(text) && text.includes('\r\n\r\n')) socket.destroy()
  })
  await new Promise((resolve) => socket.once('close', resolve))
  return { status: Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0), text }
}

const put = (port: number, body: Buffer | string, headers = {}) =>
  ask(port, 'PUT', file, { ...bearer, 'content-length': body.length, ...headers }, body)

await t.test('a request without the token of its pairing touches nothing and is reported once', async (t) => {
  const { receiver, inbox, events } = await start(t)
  const { port } = receiver
  const wrong = [
    {},
    { authorization: `Bearer ${'00'.repeat(32)}` },
    { authorization: `bearer ${token}` },
    { authorization: token },
    { authorization: `Bearer ${token} x` },
    { authorization: [`Bearer ${token}`, `Bearer ${'00'.repeat(32)}`] },
    { 'x-authorization': `Bearer ${token}` },
  ]
  for (const headers of wrong) {
    t.equal((await ask(port, 'GET', `/v1/${pairing}/${folder}/`, headers)).status, 401)
    t.equal((await ask(port, 'PUT', file, { ...headers, 'content-length': 1 }, 'x')).status, 401)
  }
  t.equal((await ask(port, 'GET', `/v1/${'00'.repeat(16)}/${folder}/`, bearer)).status, 401)
  t.equal((await ask(port, 'GET', `/v1/${pairing}/${folder}/?token=${token}`, {})).status, 404)
  t.same(await readdir(inbox), [])
  t.equal(events.length, 1)
  t.match(events[0], { code: 'RECEIVER_REFUSED', object: /127\.0\.0\.1/ })
  t.notMatch(JSON.stringify(events), token)
})

await t.test('only exact paths reach the file system', async (t) => {
  const { receiver, scratch } = await start(t)
  const targets = [
    '/',
    '/etc/passwd',
    '*',
    `/v1/${pairing}/../../elsewhere/secret`,
    `/v1/${pairing}/${folder}/../../../elsewhere/secret`,
    `/v1/${pairing}/${folder}/..%2f..%2f..%2felsewhere%2fsecret`,
    `/v1/${pairing}/${folder}/..`,
    `/v1/${pairing}/${folder}/.`,
    `/v1/${pairing}/${folder}/a.partial`,
    `/v1/${pairing}/${folder}/%00`,
    `/v1/${pairing}/${folder}/a%2fb`,
    `/v1/${pairing}/${folder}/A`,
    `/v1/${pairing}/${folder}/${'a'.repeat(121)}`,
    `/v1/${pairing}/${folder}//a`,
    `//v1/${pairing}/${folder}/a`,
    `/v2/${pairing}/${folder}/a`,
    `/v1/${pairing.toUpperCase()}/${folder}/a`,
    `/v1/${pairing}/${folder}/a#b`,
    `https://x/v1/${pairing}/${folder}/a`,
  ]
  for (const target of targets) {
    for (const method of ['GET', 'PUT', 'DELETE', 'HEAD']) {
      const { status } = await ask(receiver.port, method, target, { ...bearer, 'content-length': 0 })
      if (![404, 400, 0].includes(status)) t.fail(`${method} ${target} got ${status}`)
    }
  }
  t.equal((await ask(receiver.port, 'POST', file, { ...bearer, 'content-length': 0 })).status, 405)
  t.same(await readdir(path.join(scratch, 'inbox')), [])
  t.equal(await readFile(path.join(scratch, 'elsewhere', 'secret'), 'utf8'), 'secret')
})

await t.test('a file over the limit, of no length or over the quota is refused before a byte is stored', async (t) => {
  const { receiver, inbox } = await start(t, { maxFileBytes: 1000 }, (_id, bytes) => bytes < 500)
  const { port } = receiver
  t.equal((await put(port, Buffer.alloc(1001))).status, 413)
  t.equal((await put(port, Buffer.alloc(500))).status, 507)
  t.equal((await ask(port, 'PUT', file, bearer)).status, 411)
  t.equal(
    (await ask(port, 'PUT', file, { ...bearer, 'transfer-encoding': 'chunked' }, '1\r\nx\r\n0\r\n\r\n')).status,
    411,
  )
  t.equal((await put(port, 'x', { 'content-range': 'bytes 1000-1000/1001' })).status, 413)
  t.equal((await put(port, 'x', { 'content-range': 'bytes 5-9/10' })).status, 416)
  t.equal((await put(port, 'x', { 'content-range': 'bytes 0-0/1' })).status, 416)
  t.equal((await put(port, 'x', { 'content-range': 'bytes -1-0/1' })).status, 416)
  t.equal((await put(port, 'x', { 'content-range': `bytes ${2 ** 60}-${2 ** 60}/${2 ** 60 + 1}` })).status, 416)
  // Content-Length and Transfer-Encoding together, or two lengths, are somebody trying to smuggle a request.
  t.equal(
    (await ask(port, 'PUT', file, { ...bearer, 'content-length': 1, 'transfer-encoding': 'chunked' }, '0\r\n\r\n'))
      .status,
    0,
  )
  t.equal((await ask(port, 'PUT', file, { ...bearer, 'content-length': ['1', '2'] }, 'x')).status, 0)
  t.equal((await ask(port, 'GET', file, { ...bearer, 'x-long': 'x'.repeat(10_000) })).status, 0)
  t.same(await readdir(inbox), [])
  t.equal((await put(port, Buffer.alloc(499))).status, 201)
})

await t.test('the rest of a file is taken only where its beginning ends', async (t) => {
  const { receiver, arrivals } = await start(t)
  const { port } = receiver
  t.equal((await put(port, 'rest', { 'content-range': 'bytes 4-7/8' })).status, 409)
  const socket = await connect(port)
  socket.write(`PUT ${file} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Length: 8\r\n\r\nhalf`)
  await until(async () => (await readdir(arrivals).catch(() => [])).length > 0)
  socket.destroy()
  await until(async () => (await readFile(path.join(arrivals, 'a.tmr.partial'), 'utf8').catch(() => '')) === 'half')
  const head = await ask(port, 'HEAD', file, bearer)
  t.match(head.text, /upload-offset: 4\r\n/i)
  t.equal((await put(port, 'est', { 'content-range': 'bytes 5-7/8' })).status, 409)
  t.same(await readdir(arrivals), ['a.tmr.partial'])
  t.equal((await put(port, 'rest', { 'content-range': 'bytes 4-7/8' })).status, 201)
  t.equal(await readFile(path.join(arrivals, 'a.tmr'), 'utf8'), 'halfrest')
  t.same(await readdir(arrivals), ['a.tmr'])
})

await t.test('of two writers of one file the second waits for a busy one and replaces a dead one', async (t) => {
  const { receiver, arrivals } = await start(t)
  const { port } = receiver
  const head = `PUT ${file} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Length: 1000000\r\n\r\n`
  const first = await connect(port)
  first.write(head)
  const drip = setInterval(() => first.write('x'), 50)
  await until(async () => (await readdir(arrivals).catch(() => [])).length > 0)
  t.equal((await put(port, 'second')).status, 423)
  clearInterval(drip)
  const started = performance.now()
  let status = 423
  while (status === 423 && performance.now() - started < 10_000) status = (await put(port, 'second')).status
  t.equal(status, 201)
  t.equal(await readFile(path.join(arrivals, 'a.tmr'), 'utf8'), 'second')
  first.destroy()
})

await t.test('a link, FIFO-like thing or second name in the inbox is neither read nor written through', async (t) => {
  const { receiver, inbox, scratch, arrivals } = await start(t)
  const { port } = receiver
  const secret = path.join(scratch, 'elsewhere', 'secret')
  await mkdir(arrivals, { recursive: true })
  await symlink(secret, path.join(arrivals, 'a.tmr'))
  await symlink(secret, path.join(arrivals, 'b.tmr.partial'))
  await link(secret, path.join(arrivals, 'c.tmr'))
  await mkdir(path.join(arrivals, 'd.tmr'))
  for (const name of ['a.tmr', 'c.tmr', 'd.tmr']) {
    const { status, text } = await ask(port, 'GET', file.replace('a.tmr', name), bearer)
    t.equal(status, 500)
    t.notMatch(text, 'secret')
  }
  t.equal((await ask(port, 'HEAD', file.replace('a.tmr', 'b.tmr'), bearer)).status, 500)
  const rest = { ...bearer, 'content-length': 1, 'content-range': 'bytes 6-6/7' }
  t.equal((await ask(port, 'PUT', file.replace('a.tmr', 'b.tmr'), rest, 'x')).status, 500)
  t.equal((await put(port, 'new')).status, 201)
  t.equal(
    (await ask(port, 'PUT', file.replace('a.tmr', 'b.tmr'), { ...bearer, 'content-length': 3 }, 'new')).status,
    201,
  )
  t.equal(await readFile(secret, 'utf8'), 'secret')
  t.equal(await readFile(path.join(arrivals, 'a.tmr'), 'utf8'), 'new')
  const other = '34'.repeat(16)
  await symlink(path.join(scratch, 'elsewhere'), path.join(inbox, pairing, other))
  t.equal((await ask(port, 'GET', `/v1/${pairing}/${other}/`, bearer)).status, 500)
  t.equal((await ask(port, 'PUT', `/v1/${pairing}/${other}/x`, { ...bearer, 'content-length': 1 }, 'x')).status, 500)
  t.same(await readdir(path.join(scratch, 'elsewhere')), ['secret'])
})

await t.test('a slow or silent stranger is cut off, and many of them leave room for others', async (t) => {
  const { receiver } = await start(t, { headerMs: 500, idleMs: 1_000, maxConnections: 8 })
  const { port } = receiver
  const silent = await connect(port)
  const dripping = await connect(port)
  dripping.write('GET / HTTP/1.1\r\n')
  const drip = setInterval(() => dripping.write('x: y\r\n'), 100)
  t.teardown(() => clearInterval(drip))
  const started = performance.now()
  await Promise.all([once(silent, 'close'), once(dripping, 'close')])
  t.ok(performance.now() - started < 10_000)
  const crowd = await Promise.all(Array.from({ length: 20 }, () => connect(port).catch(() => undefined)))
  await until(
    async () =>
      (await ask(port, 'GET', `/v1/${pairing}/${folder}/`, bearer).catch(() => ({ status: 0 }))).status === 200,
  )
  for (const socket of crowd) socket?.destroy()
})

await t.test('what is no TLS or no HTTP does not hurt the receiver', async (t) => {
  const { receiver } = await start(t)
  const { port } = receiver
  for (const garbage of [
    '\0\x01\x02',
    'GET / HTTP/9.9\r\n\r\n',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    `CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n`,
  ]) {
    const socket = await connect(port)
    socket.end(garbage)
    await new Promise((resolve) => socket.resume().once('close', resolve))
  }
  const upgrade = await ask(port, 'GET', file, { ...bearer, connection: 'upgrade', upgrade: 'h2c' })
  t.equal(upgrade.status, 0)
  t.equal((await put(port, 'x')).status, 201)
})

await t.test('a port that is taken is said to be', async (t) => {
  const { receiver, inbox } = await start(t)
  const again = startReceiver({
    host: '127.0.0.1',
    port: receiver.port,
    certificate,
    inbox,
    authorize: () => undefined,
  })
  await t.rejects(again, { code: 'LISTEN', hint: /--listen/ })
})

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    if (await condition()) return
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  throw new Error('it did not come about within five seconds')
}

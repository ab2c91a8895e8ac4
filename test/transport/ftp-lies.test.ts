/** An FTP server that is hostile or broken. */
import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import type net from 'node:net'
import path from 'node:path'
import t, { type Test } from 'tap'
import { type FtpTransportOptions, ftpTransport } from '../../src/transport/ftp-transport.js'
import { type Lie, startLyingFtpServer } from '../fixtures/ftp-servers/lying-ftp-server.js'

const never = new AbortController().signal
const folder = 'ab'.repeat(16)
const password = 'sesame-open-up'
const quick = { attempts: 2, firstBackoffMs: 10, lastBackoffMs: 10 }

async function site(t: Test, lie: Lie, listing?: (data: net.Socket) => void, options: FtpTransportOptions = {}) {
  const server = await startLyingFtpServer(lie, listing)
  t.teardown(() => server.close())
  const endpoint = {
    kind: 'ftp',
    host: '127.0.0.1',
    port: server.port,
    user: 'u',
    password,
    directory: 'd',
    tls: 'none',
  } as const
  const transport = ftpTransport(endpoint, randomBytes(16), { retry: quick, ...options })
  t.teardown(() => transport.close())
  return { server, transport }
}

async function localFile(t: Test, content: Buffer): Promise<string> {
  const file = path.join(t.testdir(), 'local')
  await writeFile(file, content)
  return file
}

await t.test('a reply of ten megabytes is not kept', async (t) => {
  const size = 10 * 1024 * 1024
  const lines = await site(t, (command) => (command === 'USER' ? Buffer.alloc(size, '331-more\r\n') : undefined))
  await t.rejects(lines.transport.list(folder, never), { code: 'PROTOCOL_ERROR' })
  const oneLine = await site(t, (command) => (command === 'USER' ? Buffer.alloc(size, '3') : undefined), undefined, {
    timeouts: { idleMs: 300 },
  })
  await t.rejects(oneLine.transport.list(folder, never), { code: 'LINK_DOWN' })
})

await t.test('a passive reply that names another host is not followed', async (t) => {
  const lie: Lie = (command) => ({ EPSV: '500 What?', PASV: '227 Passive (192,0,2,1,4,1)' })[command]
  const { transport } = await site(t, lie)
  await t.rejects(transport.list(folder, never), { code: 'PROTOCOL_ERROR' })
})

await t.test('a listing without an end is given up', async (t) => {
  const line = `-rw-r--r-- 1 u g 1 Jan 1 2020 ${'x'.repeat(60)}\r\n`.repeat(2000)
  const endless = (data: net.Socket): void => {
    const more = (): void => {
      while (!data.destroyed && data.write(line));
      if (!data.destroyed) data.once('drain', more)
    }
    more()
  }
  const { transport } = await site(t, () => undefined, endless)
  await t.rejects(transport.list(folder, never), { code: 'PROTOCOL_ERROR' })
})

await t.test('a server that drips its replies is given up in time', async (t) => {
  const { transport } = await site(
    t,
    (command) => (command === 'USER' ? new Promise(() => undefined) : undefined),
    undefined,
    {
      timeouts: { idleMs: 60_000, operationMs: 300 },
    },
  )
  await t.rejects(transport.test(never), { code: 'LINK_TIMEOUT' })
})

await t.test('of a listing only regular files with proper names are believed', async (t) => {
  const entries = [
    '-rw-r--r-- 1 u g 5 Jan 1 2020 b.tmr',
    '-rw-r--r-- 1 u g 5 Jan 1 2020 a.tmr',
    '-rw-r--r-- 1 u g 5 Jan 1 2020 a.tmr.partial',
    '-rw-r--r-- 1 u g 5 Jan 1 2020 ../../etc/passwd',
    '-rw-r--r-- 1 u g 5 Jan 1 2020 A.TMR',
    '-rw-r--r-- 1 u g 99999999999999999999 Jan 1 2020 c.tmr',
    'drwxr-xr-x 1 u g 5 Jan 1 2020 d.tmr',
    'lrwxrwxrwx 1 u g 5 Jan 1 2020 e.tmr -> /etc/shadow',
  ]
  const { transport } = await site(
    t,
    () => undefined,
    (data) => data.end(`${entries.join('\r\n')}\r\n`),
  )
  t.same(await transport.list(folder, never), [
    { name: 'a.tmr', lengthBytes: 5 },
    { name: 'b.tmr', lengthBytes: 5 },
  ])
})

await t.test('a short file that was called complete never gets its name', async (t) => {
  const file = await localFile(t, randomBytes(1000))
  const { transport, server } = await site(t, (command) => (command === 'SIZE' ? '213 999' : undefined))
  await t.rejects(transport.put(folder, 'a.tmr', file, { signal: never }), {
    code: 'LINK_DOWN',
    message: /999 of 1000/,
  })
  t.notOk(server.commands.some((line) => line.startsWith('RNFR')))
  t.equal(server.commands.filter((line) => line.startsWith('STOR')).length, 2)
})

await t.test('a server that does not rename over a file is helped', async (t) => {
  const file = await localFile(t, randomBytes(1000))
  let isThere = true
  const { transport, server } = await site(t, (command, argument) => {
    if (command === 'SIZE') return argument.endsWith('.partial') || isThere ? '213 1000' : '550 None'
    if (command === 'DELE') isThere = false
    return command === 'RNTO' && isThere ? '553 It exists' : undefined
  })
  await transport.put(folder, 'a.tmr', file, { signal: never })
  t.same(server.commands.map((line) => line.split(' ')[0]).slice(-7), [
    'SIZE',
    'RNFR',
    'RNTO',
    'SIZE',
    'DELE',
    'RNFR',
    'RNTO',
  ])
})

await t.test('a server that sends the password back does not get it into an error', async (t) => {
  const reply = `530 No: ${password} is wrong\x1b[31m`
  const { transport } = await site(t, (command) => (command === 'PASS' ? reply : undefined))
  const error = await transport.test(never).catch((error: unknown) => error)
  t.match(error, { code: 'LOGIN_DENIED', message: /\*\*\* is wrong/ })
  const seen = `${error}${JSON.stringify(error)}${(error as Error).stack}${(error as Error).cause}`
  t.notOk(seen.includes(password) || seen.includes('\x1b'))
})

await t.test('binary mode is asked for before anything is sent', async (t) => {
  const file = await localFile(t, randomBytes(10))
  const { transport, server } = await site(t, (command) => (command === 'SIZE' ? '213 10' : undefined))
  await transport.put(folder, 'a.tmr', file, { signal: never })
  const binary = server.commands.indexOf('TYPE I')
  t.ok(binary >= 0 && binary < server.commands.findIndex((line) => line.startsWith('STOR')))
})

await t.test('a server that hangs up each time is given up after a limited number of tries', async (t) => {
  const file = await localFile(t, randomBytes(10))
  const { transport, server } = await site(t, (command) => (command === 'STOR' ? '421 Bye' : undefined))
  await t.rejects(transport.put(folder, 'a.tmr', file, { signal: never }), { code: 'LINK_DOWN', retry: 'later' })
  t.equal(server.commands.filter((line) => line.startsWith('STOR')).length, 2)
})

import { randomBytes } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { ftpTransport } from '../../src/transport/ftp-transport.js'
import { parseFtpUrl } from '../../src/transport/ftp-url.js'
import { startCuttingProxy } from '../fixtures/cutting-proxy.js'
import { startVsftpd } from '../fixtures/ftp-servers/vsftpd.js'
import { ftpContract } from './ftp-contract.js'

for (const tls of ['explicit', 'implicit'] as const) {
  await ftpContract(`ftp with ${tls} TLS on vsftpd`, (options) => startVsftpd({ ...options, tls }))
}

t.test(
  'a server that dies with a word in clear text is a lost connection, not a certificate that is wrong',
  async (t) => {
    const root = path.join(t.testdir(), 'ftp')
    await mkdir(root)
    const server = await startVsftpd({ root, tls: 'explicit' })
    t.teardown(() => server.stop())
    const proxy = await startCuttingProxy({ targetPort: server.port })
    t.teardown(() => proxy.close())
    const id = randomBytes(16)
    const transport = ftpTransport({ ...parseFtpUrl(server.url), port: proxy.port }, id)
    t.teardown(() => transport.close())
    const local = path.join(t.testdirName, 'local')
    const content = randomBytes(8 * MiB)
    await writeFile(local, content)
    const folder = 'ab'.repeat(16)
    let isDead = false
    const onProgress = (): void => {
      if (!isDead) proxy.lastWords('500 OOPS: child died\r\n')
      isDead = true
    }
    await transport.put(folder, 'a.tmr', local, { signal: new AbortController().signal, onProgress })
    t.ok(isDead)
    t.ok(proxy.connectionCount > 1, 'on another connection')
    t.ok(content.equals(await readFile(path.join(server.inbox, id.toString('hex'), folder, 'a.tmr'))))
  },
)

t.test(
  'a certificate that nobody vouches for is refused before the login, where the server is not this machine',
  async (t) => {
    for (const tls of ['explicit', 'implicit'] as const) {
      const root = path.join(t.testdir(), `ftp-${tls}`)
      await mkdir(root)
      const server = await startVsftpd({ root, tls })
      t.teardown(() => server.stop())
      const known = parseFtpUrl(server.url)
      // It leads to this machine, and its name does not say so.
      const transport = ftpTransport({ ...known, host: '0.0.0.0', password: 'never seen' }, randomBytes(16))
      t.teardown(() => transport.close())
      await t.rejects(transport.list('ab'.repeat(16), new AbortController().signal), { code: 'TLS_FAILED' }, tls)
      const here = ftpTransport({ ...known, password: 'wrong' }, randomBytes(16))
      t.teardown(() => here.close())
      await t.rejects(
        here.list('ab'.repeat(16), new AbortController().signal),
        { code: 'LOGIN_DENIED' },
        'else it would be',
      )
    }
  },
)

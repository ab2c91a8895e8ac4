import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { ftpTransport } from '../../src/transport/ftp-transport.js'
import { parseFtpUrl } from '../../src/transport/ftp-url.js'
import type { FtpEndpoint } from '../../src/transport/pairing.js'
import { startCuttingProxy } from '../fixtures/cutting-proxy.js'
import type { FtpServer, FtpServerOptions } from '../fixtures/ftp-servers/ftp-server.js'
import { mountSmallDisk } from '../fixtures/small-disk.js'
import { transportContract } from './transport-contract.js'

const never = new AbortController().signal
const folder = 'ab'.repeat(16)

/** The contract, and the faults, of the FTP transport on one server. */
export async function ftpContract(
  name: string,
  startServer: (options: FtpServerOptions) => Promise<FtpServer>,
): Promise<void> {
  await transportContract(name, async (scratch) => {
    const root = path.join(scratch, 'ftp')
    await mkdir(root)
    const server = await startServer({ root })
    const id = randomBytes(16)
    const endpoint = parseFtpUrl(server.url)
    return {
      open: (proxy) => ftpTransport({ ...endpoint, ...(proxy && { host: '127.0.0.1', port: proxy.port }) }, id),
      arrivals: path.join(server.inbox, id.toString('hex')),
      ...(endpoint.tls === 'none' && {
        proxy: () => startCuttingProxy({ targetHost: endpoint.host, targetPort: server.port, ftpData: true }),
      }),
      // vsftpd ends a TLS session at an empty upload, whatever the client.
      ...(endpoint.tls !== 'none' && { emptyFiles: false }),
      restart: server,
      close: () => server.stop(),
    }
  })

  await t.test(`${name}: each fault has its own code`, async (t) => {
    const root = path.join(t.testdir(), 'ftp')
    await mkdir(root)
    const server = await startServer({ root })
    t.teardown(() => server.stop())
    const good = parseFtpUrl(server.url)
    const faultOf = async (endpoint: Partial<FtpEndpoint>, timeouts = {}) => {
      const transport = ftpTransport({ ...good, ...endpoint }, randomBytes(16), { timeouts })
      const error = await transport.test(AbortSignal.timeout(20_000)).catch((error: unknown) => error)
      await transport.close()
      t.notMatch(JSON.stringify(error) + String(error), endpoint.password ?? good.password)
      return error
    }
    t.match(await faultOf({}), { roundTripMs: Number })
    t.match(await faultOf({ password: 'not-the-password' }), { code: 'LOGIN_DENIED', retry: 'never' })
    t.match(await faultOf({ directory: 'no-such-directory' }), { code: 'NOT_FOUND', retry: 'never' })
    t.match(await faultOf({ port: 1 }), { code: 'CONNECTION_REFUSED', retry: 'later' })
    t.match(await faultOf({ host: 'no-such-host.invalid' }), { code: 'HOST_NOT_FOUND', retry: 'later' })
    if (good.tls === 'none') {
      t.match(await faultOf({ tls: 'explicit' }), { code: 'TLS_FAILED' })
      const proxy = await startCuttingProxy({ targetHost: good.host, targetPort: server.port })
      t.teardown(() => proxy.close())
      proxy.blackHole()
      t.match(await faultOf({ host: '127.0.0.1', port: proxy.port }, { idleMs: 300 }), {
        code: 'LINK_TIMEOUT',
        retry: 'later',
      })
    } else if (good.tls === 'explicit') {
      t.match(await faultOf({ tls: 'none' }), { code: 'LOGIN_DENIED' })
    } else {
      // Each side waits for the other to begin.
      t.match(await faultOf({ tls: 'none' }, { idleMs: 300 }), { code: 'LINK_TIMEOUT', retry: 'later' })
      t.match(await faultOf({ tls: 'explicit' }, { idleMs: 300 }), { code: 'LINK_TIMEOUT', retry: 'later' })
    }
  })

  await t.test(`${name}: a server that permits no writing is ACCESS_DENIED`, async (t) => {
    const root = path.join(t.testdir(), 'ftp')
    await mkdir(root)
    const server = await startServer({ root, readOnly: true })
    t.teardown(() => server.stop())
    const transport = ftpTransport(parseFtpUrl(server.url), randomBytes(16))
    t.teardown(() => transport.close())
    await t.rejects(transport.test(never), { code: 'ACCESS_DENIED', retry: 'never' })
  })

  await t.test(`${name}: a full disk is REMOTE_FULL, and the transfer goes on when there is room`, async (t) => {
    const scratch = t.testdir()
    const disk = await mountSmallDisk(2 * 1024 * 1024)
    t.teardown(() => disk.unmount())
    const server = await startServer({ root: disk.directory })
    t.teardown(() => server.stop())
    const transport = ftpTransport(parseFtpUrl(server.url), randomBytes(16))
    t.teardown(() => transport.close())
    const [filler, file] = ['filler', 'file'].map((name) => path.join(scratch, name)) as [string, string]
    await writeFile(filler, randomBytes(1024 * 1024))
    await writeFile(file, randomBytes(1536 * 1024))
    await transport.put(folder, 'filler', filler, { signal: never })
    await t.rejects(transport.put(folder, 'file', file, { signal: never }), { code: 'REMOTE_FULL', retry: 'later' })
    await transport.remove(folder, 'filler', never)
    await transport.put(folder, 'file', file, { signal: never })
    t.same(await transport.list(folder, never), [{ name: 'file', lengthBytes: 1536 * 1024 }])
  })
}

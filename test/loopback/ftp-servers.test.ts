import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Agent, flush, pair } from '../fixtures/agent.js'
import type { FtpServer } from '../fixtures/ftp-servers/ftp-server.js'
import { startProftpd } from '../fixtures/ftp-servers/proftpd.js'
import { startVsftpd } from '../fixtures/ftp-servers/vsftpd.js'
import { scratchFolder } from '../fixtures/paths.js'
import { difference, farPath } from '../fixtures/sites.js'
import { stampVerify, stampWrite } from '../fixtures/stamp.js'

const folder = scratchFolder(t, 'ftp')
const source = await Agent.start(t, folder, 'source')
const destination = await Agent.start(t, folder, 'destination')

const servers: [string, (root: string) => Promise<FtpServer>][] = [
  ['vsftpd', (root) => startVsftpd({ root })],
  ['vsftpd-tls', (root) => startVsftpd({ root, tls: 'explicit' })],
  ['proftpd', (root) => startProftpd({ root })],
]
for (const [name, startServer] of servers) {
  t.test(`a stream goes through ${name}`, async (t) => {
    const root = join(folder, `${name}-root`)
    mkdirSync(root)
    const server = await startServer(root)
    t.teardown(() => server.stop())
    const link = { via: 'ftp', url: server.url, inbox: server.inbox } as const
    const far = await pair(source, destination, link, name)
    await source.cli('destination', 'test', far)
    const { device } = await source.volume(folder, name, '32MiB')
    await source.cli('stream', 'create', name, '--volume', name, '--destination', far, '--epoch', '200ms')
    await source.cli('stream', 'initialize', name, '--wait')
    const log = join(folder, `${name}.log`)
    const run = await stampWrite(device, log, { threads: 3, seconds: 3, rate: 800, sizes: '512-262144' })
    t.equal(run.errno, 0)
    await flush(source, name)
    const image = await farPath({ folder, source, destination }, name)
    t.equal(await difference(device, image), '')
    t.match(stampVerify(image, log, { requireAll: true }), { ok: true })
    await source.cli('stream', 'remove', name)
  })
}

t.test('a wrong password is named by destination test and leaks nowhere', async (t) => {
  const root = join(folder, 'locked-root')
  mkdirSync(root)
  const server = await startVsftpd({ root })
  t.teardown(() => server.stop())
  const url = server.url.replace(server.password, 'not-the-password')
  await pair(source, destination, { via: 'ftp', url, inbox: server.inbox }, 'locked')
  const result = await source.runPlain('destination', 'test', 'locked')
  t.equal(result.code, 1)
  t.match(result.stderr, /^tidemark: .*LOGIN_DENIED.*\. .+\n$/)
  t.equal((await source.run('destination', 'test', 'locked')).errorCode, 'LOGIN_DENIED')
  t.notMatch(result.stderr + source.log() + destination.log(), /not-the-password/)
  await source.cli('destination', 'remove', 'locked')
})

t.test('a server that is away is named, and nothing hangs', async (t) => {
  const root = join(folder, 'away-root')
  mkdirSync(root)
  const server = await startVsftpd({ root })
  await pair(source, destination, { via: 'ftp', url: server.url, inbox: server.inbox }, 'away')
  await server.stop()
  t.equal((await source.run('destination', 'test', 'away')).errorCode, 'CONNECTION_REFUSED')
  await source.cli('destination', 'remove', 'away')
})

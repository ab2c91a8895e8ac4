import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { crashCount, LoadedStream } from '../fixtures/crashes.js'
import { startVsftpd } from '../fixtures/ftp-servers/vsftpd.js'
import { scratchFolder } from '../fixtures/paths.js'
import { twoSites } from '../fixtures/sites.js'

const root = join(scratchFolder(t, 'ftp'), 'root')
mkdirSync(root)
const server = await startVsftpd({ root })
t.teardown(() => server.stop())
const sites = await twoSites(t, { via: 'ftp', url: server.url, inbox: server.inbox })
const stream = new LoadedStream(sites, 'load-ftp')
await stream.begin()

for (let crash = 1; crash <= crashCount; crash++) {
  t.test(`kill -9 of the FTP server under load, ${crash} of ${crashCount}`, async (t) => {
    await stream.awhile()
    await server.kill()
    await stream.awhile(100, 1500)
    await server.start()
    await stream.checkAtRest(t)
  })
}

t.test('after the crashes of the FTP server both sides converge', (t) => stream.end(t))

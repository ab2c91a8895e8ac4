/** What another user of the machine may have changed is not believed: the agent is root, and writes where its files say. */
import { chmodSync, chownSync, mkdirSync, readFileSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readConfig } from '../../src/daemon/config.js'
import { checkStateDirectory } from '../../src/daemon/own-folder.js'
import { SecretFiles } from '../../src/daemon/secret-files.js'
import { lockState } from '../../src/daemon/state-lock.js'
import { Agent } from '../fixtures/agent.js'
import { scratchFolder } from '../fixtures/paths.js'

const nobody = 65534

/** What a stranger has made of a file or folder, and how that is undone. */
const changes: [string, (path: string) => void, (path: string, mode: number) => void][] = [
  ['others may write', (path) => chmodSync(path, 0o777), chmodSync],
  ['a group may write', (path) => chmodSync(path, 0o770), chmodSync],
  ['of another user', (path) => chownSync(path, nobody, 0), (path) => chownSync(path, 0, 0)],
]

async function refusedWhileChanged(
  t: Test,
  path: string,
  mode: number,
  code: string,
  attempt: () => Promise<unknown>,
): Promise<void> {
  for (const [title, change, undo] of changes) {
    change(path)
    await t.rejects(attempt(), { code }, `${path} ${title}`)
    undo(path, mode)
    await t.resolves(attempt(), 'and is taken as it was')
  }
}

t.test('a configuration that others may write, or exchange, is refused', async (t) => {
  const folder = join(scratchFolder(t, 'config'), 'etc')
  mkdirSync(folder, { mode: 0o755 })
  const file = join(folder, 'tidemark.yaml')
  writeFileSync(file, 'buffer:\n  directory: /etc/cron.d\n', { mode: 0o644 })
  const read = () => readConfig(file, '/state')
  for (const [path, mode] of [
    [file, 0o644],
    [folder, 0o755],
  ] as const) {
    await refusedWhileChanged(t, path, mode, 'BAD_CONFIG', read)
  }
  chmodSync(folder, 0o1777)
  t.match(await read(), { bufferDirectory: '/etc/cron.d' }, 'where others can only add files')
  const link = join(folder, 'link.yaml')
  symlinkSync(file, link)
  chmodSync(file, 0o666)
  await t.rejects(readConfig(link, '/state'), { code: 'BAD_CONFIG', hint: /others may write/ }, 'by way of a link')
})

t.test('a state directory in which others may write, or anything in it, is refused', async (t) => {
  const folder = scratchFolder(t, 'state')
  const check = () => checkStateDirectory('agent', folder)
  for (const name of ['pairings', 'run']) mkdirSync(join(folder, name), { mode: 0o700 })
  for (const name of ['events.ndjson', 'lock', 'state.0']) writeFileSync(join(folder, name), '', { mode: 0o600 })
  await refusedWhileChanged(t, folder, 0o700, 'UNSAFE_FOLDER', check)
  for (const name of ['pairings', 'run']) {
    await refusedWhileChanged(t, join(folder, name), 0o700, 'UNSAFE_FOLDER', check)
  }
  for (const name of ['events.ndjson', 'lock', 'state.0']) {
    await refusedWhileChanged(t, join(folder, name), 0o600, 'UNSAFE_FOLDER', check)
  }
  chmodSync(folder, 0o1777)
  await t.rejects(check(), { code: 'UNSAFE_FOLDER', object: folder }, 'nor may they add a file')
})

t.test('a link in the place of the lock is not followed, and what it leads to stays', async (t) => {
  const folder = scratchFolder(t, 'lock')
  const precious = join(folder, 'precious')
  writeFileSync(precious, 'precious')
  symlinkSync(precious, join(folder, 'lock'))
  await t.rejects(lockState(folder), { code: 'UNSAFE_FOLDER', object: join(folder, 'lock') })
  t.equal(readFileSync(precious, 'utf8'), 'precious')
  unlinkSync(join(folder, 'lock'))
  const unlock = await lockState(folder)
  unlock()
})

t.test('a secret that others may read, own or exchange is refused', async (t) => {
  const folder = join(scratchFolder(t, 'secrets'), 'pairings')
  const secrets = new SecretFiles(folder)
  await secrets.write('one', 'hush')
  const file = join(folder, 'one')
  for (const mode of [0o644, 0o640, 0o604, 0o620, 0o602]) {
    chmodSync(file, mode)
    await t.rejects(secrets.readAll(), { code: 'SECRET_EXPOSED', object: file }, mode.toString(8))
  }
  chmodSync(file, 0o600)
  chownSync(file, nobody, nobody)
  await t.rejects(secrets.readAll(), { code: 'SECRET_EXPOSED', cause: /another user/ })
  chownSync(file, 0, 0)
  t.same([...(await secrets.readAll())], [['one', 'hush']])
  symlinkSync(file, join(folder, 'two'))
  await t.rejects(secrets.readAll(), { code: 'SECRET_EXPOSED', object: join(folder, 'two') }, 'a link')
  unlinkSync(join(folder, 'two'))
  mkdirSync(join(folder, 'three'))
  await t.rejects(secrets.readAll(), { code: 'SECRET_EXPOSED', object: join(folder, 'three') }, 'a folder')
})

t.test('an agent does not begin on what strangers may have changed, and begins when that is mended', async (t) => {
  const folder = scratchFolder(t, 'agent')
  const config = join(folder, 'tidemark.yaml')
  const buffer = join(folder, 'buffer')
  writeFileSync(config, `buffer:\n  directory: ${buffer}\n`, { mode: 0o644 })
  mkdirSync(buffer, { mode: 0o700 })
  const agent = new Agent(folder, 'agent', ['--config', config])
  t.teardown(() => agent.stop())
  for (const [path, mode, code] of [
    [agent.state, 0o700, 'UNSAFE_FOLDER'],
    [buffer, 0o700, 'UNSAFE_FOLDER'],
    [config, 0o644, 'BAD_CONFIG'],
  ] as const) {
    chmodSync(path, 0o777)
    await t.rejects(agent.start(), { message: new RegExp(`${path}.*${code}`) })
    await agent.stop()
    chmodSync(path, mode)
  }
  const umask = process.umask(0)
  await agent.start()
  process.umask(umask)
  await agent.stop()
  await t.resolves(checkStateDirectory('agent', agent.state), 'what it makes itself is nobody else’s')
})

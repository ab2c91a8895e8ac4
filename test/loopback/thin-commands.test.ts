import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { DiffView, PoolCheckView, PoolView, SnapshotView, VolumeView } from '../../src/api/agent-operations.js'
import { Agent, delay, tidemark } from '../fixtures/agent.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { repositoryRoot, scratchFolder } from '../fixtures/paths.js'
import { command, difference } from '../fixtures/sites.js'

const MiB = 1024 ** 2
const folder = scratchFolder(t, 'thin-commands')
const config = join(folder, 'tidemark.yaml')
writeFileSync(config, 'pool:\n  wait: 4s\n  marks: [50, 80]\n')
const agent = await Agent.start(t, folder, 'first', ['--config', config])
const fast = join(folder, 'fast.pool')

const pool = (name = 'fast', from = agent) => from.get<PoolView>('pools', name)
const show = (name: string, from = agent) => from.get<VolumeView>('volumes', name)
const mountedAt = new Set<string>()

async function mount(name: string, ...what: string[]): Promise<string> {
  const path = join(folder, name)
  mkdirSync(path, { recursive: true })
  remember({ kind: 'mount', path })
  await command('mount', ...what, path)
  mountedAt.add(path)
  return path
}

async function unmount(path: string): Promise<void> {
  await command('umount', path)
  mountedAt.delete(path)
  forget({ kind: 'mount', path })
}

/** A test that failed halfway leaves what it mounted; the next one needs it gone. */
t.afterEach(async () => {
  for (const path of mountedAt) await command('umount', '-l', path).catch(() => undefined)
  mountedAt.clear()
})

const fill = (file: string, mebibytes: number, ...options: string[]) =>
  command('dd', 'if=/dev/urandom', `of=${file}`, 'bs=1M', `count=${mebibytes}`, 'status=none', ...options)

async function refused(t: Pick<Tap, 'equal' | 'match'>, code: string, ...parameters: string[]): Promise<void> {
  const plain = await agent.runPlain(...parameters)
  t.equal(plain.code, 1, 'exit code')
  t.match(plain.stderr, /^tidemark: .+\. .+\n$/, 'one line: what, and what to do')
  t.equal((await agent.run(...parameters)).errorCode, code, parameters.join(' '))
}
type Tap = typeof t

t.test('a pool on a file holds a volume far larger than itself, and mkfs on it takes next to nothing', async (t) => {
  await agent.cli('pool', 'create', 'fast', '--file', fast, '--size', '512MiB', '--unit', '1MiB')
  t.match(await pool(), { allocatedBytes: 0, mappedBytes: 0, virtualBytes: 0, marks: [50, 80], state: 'online' })
  await agent.cli('volume', 'create', 'tc-db', '--pool', 'fast', '--size', '300GiB')
  const { device, link } = await agent.cli<VolumeView>('volume', 'attach', 'tc-db')
  t.match(device, /^\/dev\/loop\d+$/)
  t.equal(link, '/dev/tidemark/tc-db')
  await command('mkfs.ext4', '-q', link!)
  const { sizeBytes, allocatedBytes, mappedBytes, virtualBytes, volumes } = await pool()
  t.ok(sizeBytes > 480 * MiB && sizeBytes < 512 * MiB, `${sizeBytes}`)
  t.ok(allocatedBytes < 64 * MiB && mappedBytes <= allocatedBytes && mappedBytes > 0, `${allocatedBytes}`)
  t.equal(virtualBytes, 300 * 1024 * MiB)
  t.same(volumes, ['tc-db'])
})

t.test('a snapshot of a mounted volume is read beside it, and trims give space back', async (t) => {
  const path = await mount('tc-db', '/dev/tidemark/tc-db')
  await command('cp', '-a', join(repositoryRoot, 'src'), join(path, 'tree'))
  await fill(join(path, 'big'), 60)
  await command('sync', '-f', path)
  t.match(await agent.cli<SnapshotView>('snapshot', 'create', 'tc-db', 'monday'), { volume: 'tc-db', name: 'monday' })
  await command('rm', '-r', join(path, 'tree'), join(path, 'big'))
  writeFileSync(join(path, 'after'), 'the snapshot\n')
  await command('sync', '-f', path)
  await command('fstrim', path)
  const snapshot = await agent.cli<SnapshotView>('volume', 'attach', 'tc-db@monday', '--read-only')
  t.equal(snapshot.link, '/dev/tidemark/tc-db@monday')
  t.equal(await command('blockdev', '--getro', snapshot.device!), '1')
  const old = await mount('monday', '-o', 'ro,noload', snapshot.link!)
  t.notOk(existsSync(join(old, 'after')))
  await command('diff', '-r', join(old, 'tree'), join(repositoryRoot, 'src'))
  await refused(t, 'DEVICE_BUSY', 'volume', 'detach', 'tc-db@monday')
  await refused(t, 'VOLUME_ATTACHED', 'snapshot', 'remove', 'tc-db', 'monday')
  await unmount(old)
  await agent.cli('volume', 'detach', 'tc-db@monday')
  t.notOk(existsSync('/dev/tidemark/tc-db@monday'))
  const { extents, changedBytes } = await agent.cli<DiffView>('volume', 'diff', 'tc-db@monday', 'tc-db')
  t.ok(changedBytes > 60 * MiB && extents.every(({ lengthBytes }) => lengthBytes > 0), `${changedBytes}`)
  await unmount(path)
})

t.test('a clone is written, its origin is not', async (t) => {
  const before = await pool()
  t.match(await agent.cli('clone', 'create', 'tc-db@monday', 'tc-clone'), {
    origin: 'tc-db@monday',
    kind: 'thin',
    role: 'volume',
  })
  t.ok((await pool()).allocatedBytes - before.allocatedBytes <= before.unitBytes)
  await agent.cli('volume', 'attach', 'tc-clone')
  const path = await mount('tc-clone', '/dev/tidemark/tc-clone')
  t.ok(existsSync(join(path, 'tree/README.md')))
  writeFileSync(join(path, 'scribble'), 'x'.repeat(100_000))
  await unmount(path)
  await command('fsck.ext4', '-fn', '/dev/tidemark/tc-clone')
  await agent.cli('volume', 'detach', 'tc-clone')
  await agent.cli('volume', 'attach', 'tc-db@monday')
  const old = await mount('monday', '-o', 'ro,noload', '/dev/tidemark/tc-db@monday')
  t.notOk(existsSync(join(old, 'scribble')))
  await unmount(old)
  await agent.cli('volume', 'detach', 'tc-db@monday')
})

t.test('rolling back is refused until it is sure, and brings everything back', async (t) => {
  await agent.cli('snapshot', 'create', 'tc-db', 'tuesday')
  await refused(t, 'VOLUME_ATTACHED', 'snapshot', 'rollback', 'tc-db', 'monday')
  await agent.cli('volume', 'detach', 'tc-db')
  await refused(t, 'CONFIRMATION_NEEDED', 'snapshot', 'rollback', 'tc-db', 'monday')
  await refused(t, 'NO_SUCH_SNAPSHOT', 'snapshot', 'rollback', 'tc-db', 'friday', '--yes')
  await agent.cli('snapshot', 'rollback', 'tc-db', 'monday', '--yes')
  await agent.cli('volume', 'attach', 'tc-db')
  const path = await mount('tc-db', '/dev/tidemark/tc-db')
  t.notOk(existsSync(join(path, 'after')))
  t.equal(statSync(join(path, 'big')).size, 60 * MiB)
  await unmount(path)
  await command('fsck.ext4', '-fn', '/dev/tidemark/tc-db')
  await agent.cli('volume', 'detach', 'tc-db')
  await agent.cli('snapshot', 'rollback', 'tc-db', 'tuesday', '--yes')
  await agent.cli('volume', 'attach', 'tc-db')
  const newer = await mount('tc-db', '/dev/tidemark/tc-db')
  t.equal(readFileSync(join(newer, 'after'), 'utf8'), 'the snapshot\n', 'the newer snapshot was still there')
  await unmount(newer)
  t.same(
    (await agent.cli<SnapshotView[]>('snapshot', 'list', 'tc-db')).map(({ name }) => name),
    ['monday', 'tuesday'],
  )
})

t.test('a volume grows under its file system', async (t) => {
  await agent.cli('volume', 'create', 'tc-grows', '--pool', 'fast', '--size', '32MiB')
  await agent.cli('volume', 'attach', 'tc-grows')
  await command('mkfs.ext4', '-q', '/dev/tidemark/tc-grows')
  const path = await mount('tc-grows', '/dev/tidemark/tc-grows')
  await agent.cli('volume', 'resize', 'tc-grows', '--size', '64MiB')
  t.equal(await command('blockdev', '--getsize64', '/dev/tidemark/tc-grows'), String(64 * MiB), 'while it is mounted')
  await unmount(path)
  await command('e2fsck', '-fp', '/dev/tidemark/tc-grows')
  await command('resize2fs', '/dev/tidemark/tc-grows')
  await fill(join(await mount('tc-grows', '/dev/tidemark/tc-grows'), 'more'), 40)
  await unmount(path)
  await command('fsck.ext4', '-fn', '/dev/tidemark/tc-grows')
  await refused(t, 'CONFIRMATION_NEEDED', 'volume', 'resize', 'tc-grows', '--size', '16MiB')
  await refused(t, 'VOLUME_ATTACHED', 'volume', 'resize', 'tc-grows', '--size', '16MiB', '--force')
  await agent.cli('volume', 'detach', 'tc-grows')
  t.match(await agent.cli('volume', 'resize', 'tc-grows', '--size', '16MiB', '--force'), { sizeBytes: 16 * MiB })
  await refused(t, 'CONFIRMATION_NEEDED', 'volume', 'remove', 'tc-grows')
  await agent.cli('volume', 'remove', 'tc-grows', '--yes')
})

t.test('a complete image stands alone, and a refresh brings it up to date', async (t) => {
  await agent.cli('volume', 'create', 'tc-gold', '--pool', 'fast', '--size', '256MiB')
  await agent.cli('volume', 'attach', 'tc-gold')
  await command('mkfs.ext4', '-q', '/dev/tidemark/tc-gold')
  const path = await mount('tc-gold', '/dev/tidemark/tc-gold')
  await fill(join(path, 'old'), 20)
  await unmount(path)
  const made = await agent.cli<VolumeView>('clone', 'create', 'tc-gold', 'tc-copy', '--full', '--wait')
  t.match(made, { origin: null, image: { volume: 'tc-gold', complete: true, progress: null } })
  t.equal(await difference('/dev/tidemark/tc-gold', await attached('tc-copy')), '')
  await refused(t, 'VOLUME_ATTACHED', 'clone', 'refresh', 'tc-copy')
  await agent.cli('volume', 'detach', 'tc-copy')
  await mount('tc-gold', '/dev/tidemark/tc-gold')
  await fill(join(path, 'news'), 3)
  await command('rm', join(path, 'old'))
  await unmount(path)
  await agent.cli('clone', 'refresh', 'tc-copy', '--wait')
  t.equal(await difference('/dev/tidemark/tc-gold', await attached('tc-copy')), '')
  t.match((await agent.events()).at(-1), { code: 'IMAGE_COMPLETE', object: 'tc-copy' })
  await agent.cli('volume', 'detach', 'tc-copy')
  await refused(t, 'NOT_AN_IMAGE', 'clone', 'refresh', 'tc-clone')
  t.same(await agent.cli('snapshot', 'list', 'tc-gold'), [], 'what a refresh keeps for itself is not shown')
})

t.test('after kill -9 all that was attached is there as it was, and hosts go on', async (t) => {
  await agent.cli('volume', 'attach', 'tc-db@monday', '--read-only')
  await agent.cli('volume', 'attach', 'tc-clone', '--read-only')
  const path = await mount('tc-db', '/dev/tidemark/tc-db')
  writeFileSync(join(path, 'acknowledged'), 'and synced\n')
  await command('sync', '-f', path)
  const { device } = await show('tc-db')
  await agent.kill()
  await agent.start()
  t.match(await show('tc-db'), { state: 'attached', readOnly: false, device })
  t.match(await show('tc-clone'), { state: 'attached', readOnly: true })
  t.match(await agent.get('volumes', 'tc-db', 'snapshots'), [
    { name: 'monday', state: 'attached' },
    { state: 'detached' },
  ])
  t.match(await show('tc-copy'), { state: 'detached', image: { complete: true } })
  writeFileSync(join(path, 'after'), 'as if nothing had been\n')
  await command('sync', '-f', path)
  await unmount(path)
  const again = await mount('tc-db', '/dev/tidemark/tc-db')
  t.equal(readFileSync(join(again, 'acknowledged'), 'utf8'), 'and synced\n')
  t.equal(readFileSync(join(again, 'after'), 'utf8'), 'as if nothing had been\n')
  await unmount(again)
  await command('fsck.ext4', '-fn', '/dev/tidemark/tc-db')
  for (const name of ['tc-db', 'tc-db@monday', 'tc-clone', 'tc-gold']) await agent.cli('volume', 'detach', name)
})

t.test('a full pool makes writes wait, then fail; after an extension everything goes on', async (t) => {
  const full = join(folder, 'full.pool')
  await agent.cli('pool', 'create', 'full', '--file', full, '--size', '64MiB', '--unit', '1MiB')
  await agent.cli('volume', 'create', 'tc-much', '--pool', 'full', '--size', '1GiB')
  await agent.cli('volume', 'attach', 'tc-much')
  await command('mkfs.ext4', '-q', '/dev/tidemark/tc-much')
  const path = await mount('tc-much', '/dev/tidemark/tc-much')
  await t.rejects(fill(join(path, 'too-much'), 100, 'oflag=direct'), 'what waited long enough has failed')
  t.match(await pool('full'), { state: 'full' })
  await refused(t, 'POOL_NEARLY_FULL', 'snapshot', 'create', 'tc-much', 'never')
  const marks = (await agent.events()).filter(({ code, object }) => code === 'POOL_MARK' && object === 'full')
  t.ok(marks.length > 0, 'a mark was told')
  const waiting = fill(join(path, 'waits'), 8, 'oflag=direct')
  await delay(1000)
  await agent.cli('pool', 'extend', 'full', '--file', `${full}-2`, '--size', '64MiB')
  await waiting
  t.match(await pool('full'), { state: /online|nearly-full/, devices: [{ path: full }, { path: `${full}-2` }] })
  await unmount(path)
  await command('fsck.ext4', '-fn', '/dev/tidemark/tc-much')
  await agent.cli('volume', 'detach', 'tc-much')
})

t.test('a pool of two devices goes to another agent and comes back; in use it stays', async (t) => {
  const second = await Agent.start(t, folder, 'second')
  await agent.cli('volume', 'attach', 'tc-much')
  await refused(t, 'POOL_IN_USE', 'pool', 'export', 'full')
  await agent.cli('volume', 'detach', 'tc-much')
  const { paths } = await agent.cli<{ paths: string[] }>('pool', 'export', 'full')
  t.same(await agent.cli<VolumeView[]>('volume', 'list').then((all) => all.map(({ name }) => name)), [
    'tc-clone',
    'tc-copy',
    'tc-db',
    'tc-gold',
  ])
  t.match(await second.run('pool', 'import', paths[0]!), { code: 1 }, 'half of it is not enough')
  t.match(await second.cli('pool', 'import', ...paths.toReversed()), { name: 'full', volumes: ['tc-much'] })
  t.match(await show('tc-much', second), { state: 'detached', pool: 'full' })
  t.match(await agent.run('pool', 'import', ...paths), { code: 1, errorCode: 'POOL_OPEN' }, 'nobody takes it away')
  await second.cli('volume', 'attach', 'tc-much')
  const path = await mount('tc-much', '/dev/tidemark/tc-much')
  t.equal(statSync(join(path, 'waits')).size, 8 * MiB)
  writeFileSync(join(path, 'elsewhere'), 'written by the second agent\n')
  await command('sync', '-f', path)
  // The second controller burns down.
  await second.kill()
  await second.cli('keeper', 'abort', 'tc-much')
  await command('umount', '-l', path)
  t.match(await agent.cli('pool', 'import', ...paths), { name: 'full', volumes: ['tc-much'] })
  await agent.cli('volume', 'attach', 'tc-much')
  const back = await mount('tc-much', '/dev/tidemark/tc-much')
  t.equal(readFileSync(join(back, 'elsewhere'), 'utf8'), 'written by the second agent\n')
  await unmount(back)
  await command('fsck.ext4', '-fn', '/dev/tidemark/tc-much')
  // It comes up again, and finds its pool in other hands.
  await second.start()
  t.match(await pool('full', second), { state: 'failed', reason: /POOL_OPEN/ })
  await second.cli('pool', 'export', 'full')
  await agent.cli('volume', 'detach', 'tc-much')
  await refused(t, 'CONFIRMATION_NEEDED', 'pool', 'remove', 'full')
  await agent.cli('pool', 'remove', 'full', '--yes')
  for (const file of paths) t.notOk(existsSync(file))
})

t.test('an image whose copy was cut off by kill -9 is copied on by itself', async (t) => {
  await agent.cli('volume', 'attach', 'tc-gold')
  const path = await mount('tc-gold', '/dev/tidemark/tc-gold')
  await fill(join(path, 'large'), 120)
  await unmount(path)
  await agent.cli('clone', 'refresh', 'tc-copy')
  await agent.kill()
  await agent.start()
  await agent.until(
    () => show('tc-copy'),
    ({ image }) => image?.complete === true,
  )
  t.equal(await difference('/dev/tidemark/tc-gold', await attached('tc-copy')), '')
  for (const name of ['tc-gold', 'tc-copy']) await agent.cli('volume', 'detach', name)
  await agent.cli('volume', 'remove', 'tc-gold', '--yes')
  t.match(await show('tc-copy'), { image: null, state: 'detached' }, 'and it outlives its source')
  await agent.cli('volume', 'remove', 'tc-copy', '--yes')
})

t.test('a pool is checked by name while nothing uses it, and by path without any agent', async (t) => {
  await agent.cli('volume', 'attach', 'tc-db')
  await refused(t, 'POOL_IN_USE', 'pool', 'check', 'fast')
  await agent.cli('volume', 'detach', 'tc-db')
  const found = await agent.cli<PoolCheckView>('pool', 'check', 'fast')
  t.match(found, { pool: 'fast', clean: true, findings: [], volumes: 2, snapshots: 2, devices: [fast] })
  t.equal(found.mappedBytes, (await pool()).mappedBytes)
  t.match(await show('tc-db'), { pool: 'fast', state: 'detached' }, 'and it is open again')
  t.match(await tidemark(['--json', 'pool', 'check', fast]), { code: 1, errorCode: 'POOL_OPEN' })
  await agent.cli('pool', 'export', 'fast')
  t.match(await tidemark(['--json', 'pool', 'check', fast]), { code: 0, json: { pool: 'fast', clean: true } })
  // The older superblock goes: nothing is lost, but it is not as it should be.
  const file = openSync(fast, 'r+')
  writeSync(file, Buffer.alloc(4096, 0xff), 0, 4096, 4096)
  closeSync(file)
  const damaged = await tidemark(['--json', 'pool', 'check', fast])
  t.match(damaged, { code: 1, errorCode: 'POOL_DAMAGED', json: { clean: false, usable: true } })
  t.match((damaged.json as PoolCheckView).findings, [{ severity: 'warning', object: /superblock/, repaired: false }])
  const repaired = await tidemark(['--json', 'pool', 'check', fast, '--repair'])
  t.match(repaired, { code: 0, json: { clean: true, findings: [{ repaired: true }] } })
  t.match(await tidemark(['--json', 'pool', 'check', fast]), { code: 0, json: { clean: true, findings: [] } })
  await refused(t, 'DATA_PRESENT', 'volume', 'adopt', 'v', '--path', fast)
  t.match(await tidemark(['--json', 'pool', 'check', config]), { code: 1, errorCode: 'NOT_A_POOL_DEVICE' })
  t.match(await agent.cli('pool', 'import', fast), { name: 'fast', volumes: ['tc-db', 'tc-clone'] })
  await agent.cli('volume', 'attach', 'tc-db')
  await command('fsck.ext4', '-fn', '/dev/tidemark/tc-db')
  await agent.cli('volume', 'detach', 'tc-db')
})

t.test('what is in the way is named', async (t) => {
  await refused(t, 'NO_SUCH_POOL', 'pool', 'show', 'nobody')
  await refused(t, 'NO_SUCH_POOL', 'volume', 'create', 'v', '--pool', 'nobody', '--size', '1GiB')
  await refused(t, 'ALREADY_EXISTS', 'volume', 'create', 'tc-db', '--pool', 'fast', '--size', '1GiB')
  await refused(t, 'ALREADY_EXISTS', 'pool', 'create', 'fast', '--file', join(folder, 'x'), '--size', '64MiB')
  await refused(t, 'ALREADY_EXISTS', 'pool', 'create', 'other', '--file', fast, '--size', '64MiB')
  await refused(t, 'ALREADY_IN_USE', 'pool', 'create', 'other', '--file', fast, '--size', '64MiB', '--force')
  await refused(t, 'ALREADY_IN_USE', 'volume', 'adopt', 'v', '--path', fast)
  await refused(t, 'BAD_SIZE', 'pool', 'create', 'other', '--file', join(folder, 'x'), '--size', '1MiB')
  await refused(t, 'HAS_SNAPSHOTS', 'volume', 'remove', 'tc-db', '--yes')
  await refused(t, 'NO_SUCH_SNAPSHOT', 'volume', 'attach', 'tc-db@friday')
  await refused(t, 'NO_SUCH_SNAPSHOT', 'clone', 'create', 'tc-db@friday', 'v')
  await refused(t, 'ALREADY_EXISTS', 'clone', 'create', 'tc-db@monday', 'tc-clone')
  await refused(t, 'ALREADY_EXISTS', 'snapshot', 'create', 'tc-db', 'monday')
  await refused(t, 'BAD_NAME', 'snapshot', 'create', 'tc-db', '.image:copy:1')
  await agent.cli('volume', 'create', 'flat', '--path', join(folder, 'flat'), '--size', '1MiB')
  await refused(t, 'NOT_THIN', 'snapshot', 'create', 'flat', 's')
  await refused(t, 'NOT_THIN', 'volume', 'resize', 'flat', '--size', '2MiB')
  t.notOk(existsSync(join(folder, 'x')))
  t.same(
    readdirSync('/dev/tidemark').filter((name) => name.startsWith('tc-')),
    [],
  )
})

async function attached(name: string): Promise<string> {
  const { link } = await agent.cli<VolumeView>('volume', 'attach', name)
  return link!
}

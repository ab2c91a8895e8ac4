import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { DiffView, PoolView, SnapshotView, VolumeView } from '../../src/api/agent-operations.js'
import { Agent } from '../fixtures/agent.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command } from '../fixtures/sites.js'

const MiB = 1024 ** 2
const folder = scratchFolder(t, 'written-snapshots')
const agent = await Agent.start(t, folder, 'first')
const file = join(folder, 'ws.pool')
const snapshotName = 'ws-db@monday'
const link = `/dev/tidemark/${snapshotName}`
const mountedAt = new Set<string>()

const view = async (from = agent) => (await from.get<SnapshotView[]>('volumes', 'ws-db', 'snapshots'))[0]!
const pool = (from = agent) => from.get<PoolView>('pools', 'ws')
const hash = async (device: string) => (await command('sha256sum', device)).split(' ')[0]

async function mount(device: string): Promise<string> {
  const path = join(folder, `mnt-${mountedAt.size}`)
  mkdirSync(path, { recursive: true })
  remember({ kind: 'mount', path })
  await command('mount', device, path)
  mountedAt.add(path)
  return path
}

async function unmount(path: string): Promise<void> {
  await command('umount', path)
  mountedAt.delete(path)
  forget({ kind: 'mount', path })
}

t.afterEach(async () => {
  for (const path of mountedAt) await command('umount', '-l', path).catch(() => undefined)
  mountedAt.clear()
})

async function refused(test: Pick<typeof t, 'same'>, from: Agent, commands: Record<string, string>): Promise<void> {
  const codes = Object.keys(commands).map(async (line) => [line, (await from.run(...line.split(' '))).errorCode])
  test.same(Object.fromEntries(await Promise.all(codes)), commands)
}

/** The bytes that were taken, as the read-only device has them. */
async function taken(from = agent): Promise<string | undefined> {
  await from.cli('volume', 'attach', snapshotName, '--read-only')
  const found = await hash(link)
  await from.cli('volume', 'detach', snapshotName)
  return found
}

let before: string | undefined

t.test('a snapshot is mounted and written, while its volume, its clones and its diff know nothing of it', async (t) => {
  await agent.cli('pool', 'create', 'ws', '--file', file, '--size', '512MiB', '--unit', '1MiB')
  await agent.cli('volume', 'create', 'ws-db', '--pool', 'ws', '--size', '32MiB')
  await agent.cli('volume', 'attach', 'ws-db')
  await command('mkfs.ext4', '-q', '/dev/tidemark/ws-db')
  const head = await mount('/dev/tidemark/ws-db')
  writeFileSync(join(head, 'old'), 'x'.repeat(5 * MiB))
  await command('sync', '-f', head)
  await agent.cli('snapshot', 'create', 'ws-db', 'monday')
  before = await taken()
  t.match(await view(), { state: 'detached', writtenBytes: null, readOnly: false })
  await agent.cli('volume', 'attach', snapshotName)
  t.match(await view(), { state: 'attached', link, writtenBytes: null, readOnly: false })
  // The journal of a file system that was in use is replayed: that is a write already.
  const path = await mount(link)
  t.equal(readFileSync(join(path, 'old'), 'utf8').length, 5 * MiB)
  writeFileSync(join(path, 'new'), 'y'.repeat(3 * MiB))
  await command('sync', '-f', path)
  t.notOk(existsSync(join(head, 'new')))
  const { writtenBytes } = await view()
  t.ok(writtenBytes! >= 3 * MiB && writtenBytes! < 24 * MiB, `${writtenBytes} bytes of its own`)
  await refused(t, agent, {
    'volume attach ws-db@monday --read-only': 'ATTACHED_OTHERWISE',
    'snapshot remove ws-db monday': 'VOLUME_ATTACHED',
    'snapshot discard ws-db monday --yes': 'VOLUME_ATTACHED',
    'pool export ws': 'POOL_IN_USE',
  })
  const diff = await agent.cli<DiffView>('volume', 'diff', snapshotName, 'ws-db')
  t.ok(diff.changedBytes < MiB, `${diff.changedBytes} bytes differ from the volume`)
  await agent.cli('clone', 'create', snapshotName, 'ws-copy', '--full', '--wait')
  await agent.cli('volume', 'attach', 'ws-copy', '--read-only')
  t.equal(await hash('/dev/tidemark/ws-copy'), before, 'a complete image made meanwhile')
  await agent.cli('volume', 'detach', 'ws-copy')
  t.same(
    (await agent.get<VolumeView[]>('volumes')).map(({ name }) => name),
    ['ws-copy', 'ws-db'],
  )
  await unmount(head)
  await agent.cli('volume', 'detach', 'ws-db')
  await unmount(path)
})

t.test('kill -9 is a pause to the host that writes a snapshot', async (t) => {
  const path = await mount(link)
  writeFileSync(join(path, 'acknowledged'), 'and synced\n')
  await command('sync', '-f', path)
  const { device } = await view()
  await agent.kill()
  await agent.start()
  t.match(await view(), { state: 'attached', readOnly: false, device })
  writeFileSync(join(path, 'after'), 'as if nothing had been\n')
  await command('sync', '-f', path)
  t.equal(readFileSync(join(path, 'acknowledged'), 'utf8'), 'and synced\n')
  await unmount(path)
  await command('fsck.ext4', '-fn', link)
  await agent.cli('volume', 'detach', snapshotName)
  t.equal(await taken(), before)
})

t.test('it goes with the pool to another agent; a discard there gives what was taken, and the space', async (t) => {
  const [second] = await Promise.all([Agent.start(t, folder, 'second'), agent.cli('pool', 'export', 'ws')])
  await second.cli('pool', 'import', file)
  const { writtenBytes } = await view(second)
  t.ok(writtenBytes! >= 3 * MiB)
  await second.cli('volume', 'attach', snapshotName)
  const path = await mount(link)
  t.equal(readFileSync(join(path, 'after'), 'utf8'), 'as if nothing had been\n')
  t.equal(readFileSync(join(path, 'new'), 'utf8').length, 3 * MiB)
  await unmount(path)
  await second.cli('volume', 'detach', snapshotName)
  await refused(t, second, { 'snapshot discard ws-db monday': 'CONFIRMATION_NEEDED' })
  const { allocatedBytes } = await pool(second)
  await second.cli('snapshot', 'discard', 'ws-db', 'monday', '--yes')
  await second.until(
    () => pool(second),
    (now) => now.allocatedBytes <= allocatedBytes - writtenBytes!,
  )
  await second.cli('volume', 'attach', snapshotName)
  t.equal(await hash(link), before)
  await second.cli('volume', 'detach', snapshotName)
  t.match(await view(second), { writtenBytes: null }, 'who reads writes nothing')
  t.match(await second.cli('pool', 'check', 'ws'), { clean: true, volumes: 2, snapshots: 1 })
})

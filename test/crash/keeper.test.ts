/** Hosts do not see an agent end: its devices are held by the keeper, and the next agent goes on with them. */
import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, truncateSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { SnapshotView, VolumeView } from '../../src/api/agent-operations.js'
import { Agent, delay } from '../fixtures/agent.js'
import { FioLoad } from '../fixtures/fio-load.js'
import { keeperPid, keptDevices } from '../fixtures/keeper.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command, md5Direct } from '../fixtures/sites.js'
import { createPool, thinVolume } from '../fixtures/thin-sites.js'

/** Of the agent, under fio. */
const crashCount = 6
/** An agent that was killed has no thread that stays in the kernel until the keeper ends its devices (30 s). */
const goneMs = 20_000
/** What is ended gets its answer at once; a host that waits does not get one by itself. */
const atOnceMs = 5_000
const surelyWaitsMs = 1_500

const folder = scratchFolder(t, 'keeper')
const agent = await Agent.start(t, folder)
await createPool(agent, folder, 'keeper-pool')

function show(name: string): Promise<VolumeView> {
  return agent.get<VolumeView>('volumes', name)
}

const kept = (): Promise<Record<string, string>> => keptDevices(agent)

async function codes(since: number): Promise<string[]> {
  return (await agent.events()).slice(since).map(({ code, object }) => `${code} ${object}`)
}

/** POST without an answer that counts: the agent may be killed at any time. */
function post(path: string, body?: object): Promise<void> {
  const text = body === undefined ? '' : JSON.stringify(body)
  const headers = {
    host: 'localhost',
    'content-length': text.length,
    ...(text && { 'content-type': 'application/json' }),
  }
  return new Promise((resolve) => {
    const request = http.request({
      socketPath: agent.socket,
      method: 'POST',
      path: `/v1/${path}`,
      agent: false,
      headers,
    })
    request.on('response', (response) => response.on('close', resolve).resume())
    request.on('error', () => setTimeout(resolve, 10))
    request.end(text)
  })
}

/** Give volumes devices and take them away, and let one grow, so that an agent is killed in the middle of that. */
function churn(): { stop(): Promise<void> } {
  let over = false
  const come = async (name: string): Promise<void> => {
    while (!over) for (const verb of ['attach', 'detach']) await post(`volumes/${name}/${verb}`)
  }
  const grow = async (): Promise<void> => {
    for (let size = 129; !over; size++) await post('volumes/keeper-thin/resize', { size: `${size}MiB` })
  }
  const all = [come('keeper-comes'), come('keeper-thin-comes'), grow()]
  return {
    async stop() {
      over = true
      await Promise.all(all)
    },
  }
}

/** Write 4 KiB through to the device: the exit code of who tries, or undefined while it waits. */
function write(device: string): { readonly ended: Promise<number>; readonly code: () => number | null } {
  const child = spawn('dd', ['if=/dev/zero', `of=${device}`, 'bs=4k', 'count=1', 'oflag=direct', 'conv=notrunc'], {
    stdio: 'ignore',
  })
  const left = { kind: 'process', pid: child.pid! } as const
  remember(left)
  const ended = new Promise<number>((resolve) => {
    child.on('close', (code) => {
      forget(left)
      resolve(code ?? -1)
    })
  })
  return { ended, code: () => child.exitCode }
}

async function mount(device: string, name: string): Promise<string> {
  const path = join(folder, name)
  mkdirSync(path, { recursive: true })
  remember({ kind: 'mount', path })
  await command('mount', device, path)
  return path
}

async function unmount(path: string, ...how: string[]): Promise<void> {
  await command('umount', ...how, path)
  forget({ kind: 'mount', path })
}

const { device: fileDevice } = await agent.volume(folder, 'keeper-file', '128MiB')
const thinDevice = await thinVolume(agent, 'keeper-thin', '128MiB', 'keeper-pool')
writeFileSync(join(folder, 'disk'), '')
truncateSync(join(folder, 'disk'), 64 << 20)
const disk = await command('losetup', '--find', '--show', join(folder, 'disk'))
await agent.cli('volume', 'adopt', 'keeper-raw', '--path', disk)
const rawDevice = (await agent.cli<VolumeView>('volume', 'attach', 'keeper-raw')).device!
await agent.cli('volume', 'create', 'keeper-comes', '--path', join(folder, 'comes.img'), '--size', '16MiB')
await agent.cli('volume', 'create', 'keeper-thin-comes', '--pool', 'keeper-pool', '--size', '16MiB')
await command('mkfs.ext4', '-q', fileDevice)
const tree = await mount(fileDevice, 'tree')

async function underLoad(t: Test, action: () => Promise<unknown>): Promise<void> {
  const loads = [new FioLoad(join(tree, 'fio')), new FioLoad(thinDevice), new FioLoad(rawDevice, { size: '4m' })]
  await delay(500)
  await action()
  for (const load of loads) t.equal(await load.stop(), '', 'no error, and what is read is what was written')
  t.comment(`${loads.map(({ runs }) => runs).join(', ')} whole runs of fio`)
  t.ok(loads.every(({ runs }) => runs > 0))
}

async function sameDevices(t: Test): Promise<void> {
  t.match(await show('keeper-file'), { state: 'attached', device: fileDevice })
  t.match(await show('keeper-thin'), { state: 'attached', device: thinDevice })
  t.match(await show('keeper-raw'), { state: 'attached', device: rawDevice })
}

t.test(`${crashCount} times kill -9 of the agent under fio: no host sees an error`, async (t) => {
  await command('dd', 'if=/dev/urandom', `of=${thinDevice}`, 'bs=1M', 'seek=64', 'count=8', 'oflag=direct')
  await agent.cli('snapshot', 'create', 'keeper-thin', 'before')
  const { device } = await agent.cli<SnapshotView>('volume', 'attach', 'keeper-thin@before', '--read-only')
  const sum = await md5Direct(device!)
  await underLoad(t, async () => {
    for (let crash = 1; crash <= crashCount; crash++) {
      const changes = churn()
      await delay(200 + Math.random() * 1000)
      const begun = performance.now()
      await agent.kill()
      const gone = performance.now() - begun
      t.ok(gone < goneMs, `gone after ${Math.round(gone)} ms`)
      await changes.stop()
      if (crash === 1) t.match(await kept(), { 'keeper-file': 'waits', 'keeper-thin': 'waits', 'keeper-raw': 'waits' })
      await agent.start()
      await sameDevices(t)
    }
  })
  t.equal(await md5Direct(device!), sum, 'the snapshot is served on, too')
  t.match(await kept(), { 'keeper-file': 'served', 'keeper-thin@before': 'served' })
  await agent.cli('volume', 'detach', 'keeper-thin@before')
  t.notOk('keeper-thin@before' in (await kept()))
  t.equal(
    await command('blockdev', '--getsize64', thinDevice),
    String((await show('keeper-thin')).sizeBytes),
    'as large as the host sees it',
  )
})

t.test('an agent that is stopped in order leaves what is in use to the next one', async (t) => {
  // Open all the time: between two runs of fio a device may be in use by nobody, and is detached then.
  const held = [thinDevice, rawDevice].map((device) => openSync(device, 'r'))
  await underLoad(t, async () => {
    await agent.terminate()
    t.match(await kept(), { 'keeper-file': 'waits', 'keeper-thin': 'waits', 'keeper-raw': 'waits' })
    await agent.start()
    await sameDevices(t)
  })
  for (const fd of held) closeSync(fd)
})

t.test('a volume that grows is seen by its host, and the next agent has it as large', async (t) => {
  await underLoad(t, () => agent.cli('volume', 'resize', 'keeper-thin', '--size', '384MiB'))
  t.equal(await command('blockdev', '--getsize64', thinDevice), String(384 << 20))
  await agent.kill()
  await agent.start()
  await command('dd', 'if=/dev/zero', `of=${thinDevice}`, 'bs=1M', 'seek=383', 'count=1', 'oflag=direct')
  await sameDevices(t)
})

t.test('a device whose pool is missing when the next agent starts waits until it is there', async (t) => {
  const pool = join(folder, 'keeper-pool.img')
  const since = (await agent.events()).length
  await underLoad(t, async () => {
    await agent.kill()
    renameSync(pool, `${pool}-away`)
    await agent.start()
    t.match(await kept(), { 'keeper-file': 'served', 'keeper-thin': 'waits' })
    t.ok((await codes(since)).includes('HOST_WAITS keeper-thin'))
    renameSync(`${pool}-away`, pool)
    await agent.cli('pool', 'import', pool)
    await sameDevices(t)
    t.match(await kept(), { 'keeper-thin': 'served' })
  })
})

t.test('a host that waits without an agent is let go by keeper abort', async (t) => {
  await command('dd', 'if=/dev/urandom', `of=${rawDevice}`, 'bs=1M', 'count=4', 'conv=fsync', 'status=none')
  const sum = await command('bash', '-c', `head -c 4M ${rawDevice} | tail -c 3M | md5sum`)
  await agent.kill()
  const host = write(rawDevice)
  await delay(surelyWaitsMs)
  t.equal(host.code(), null, 'it waits')
  t.match(await agent.run('keeper', 'abort', 'keeper-none'), { code: 1, errorCode: 'NO_SUCH_DEVICE' })
  await agent.cli('keeper', 'abort', 'keeper-raw')
  t.not(await Promise.race([host.ended, delay(atOnceMs).then(() => 'it still waits')]), 'it still waits')
  t.equal(host.code(), 1, 'it has an error')
  const others = await kept()
  t.match(others, { 'keeper-file': 'waits', 'keeper-thin': 'waits' }, 'the others are held on')
  t.notOk('keeper-raw' in others)
  await agent.start()
  const volume = await show('keeper-raw')
  t.match(volume, { state: 'attached' })
  t.equal(await command('bash', '-c', `head -c 4M ${volume.device} | tail -c 3M | md5sum`), sum)
  t.match(await show('keeper-file'), { device: fileDevice })
  await command('sync', '-f', tree)
})

t.test('agent and keeper killed together: hosts get errors at once, and nothing flushed is lost', async (t) => {
  writeFileSync(join(tree, 'flushed'), 'before both were killed\n')
  await command('sync', '-f', tree)
  await command('dd', 'if=/dev/urandom', `of=${thinDevice}`, 'bs=1M', 'count=8', 'oflag=direct', 'conv=fsync')
  const sum = await md5Direct(thinDevice)
  const keeper = keeperPid(agent)!
  await agent.kill()
  process.kill(keeper, 'SIGKILL')
  const host = write(thinDevice)
  t.equal(await Promise.race([host.ended, delay(atOnceMs).then(() => 'it waits')]), 1)
  await unmount(tree, '-l')
  await agent.start()
  for (const name of ['keeper-file', 'keeper-thin', 'keeper-raw']) t.match(await show(name), { state: 'attached' })
  t.equal(await md5Direct((await show('keeper-thin')).device!), sum)
  const again = await mount('/dev/tidemark/keeper-file', 'again')
  t.equal(readFileSync(join(again, 'flushed'), 'utf8'), 'before both were killed\n')
  await unmount(again)
  await command('fsck.ext4', '-fn', '/dev/tidemark/keeper-file')
})

t.test(
  'a kernel that sends nothing again: the device ends with its agent, which says so, and is attached anew',
  async (t) => {
    await agent.terminate()
    process.env.TIDEMARK_WITHOUT_RESEND = '1'
    t.teardown(() => {
      delete process.env.TIDEMARK_WITHOUT_RESEND
    })
    const since = (await agent.events().catch(() => [])).length
    await agent.start()
    t.ok((await codes(since)).includes('DEVICE_NOT_KEPT keeper-thin'))
    const { device } = await show('keeper-thin')
    const sum = await md5Direct(device!)
    await agent.kill()
    const host = write(device!)
    t.equal(await Promise.race([host.ended, delay(atOnceMs).then(() => 'it waits')]), 1)
    t.strictSame(await kept(), {})
    await agent.start()
    const again = await show('keeper-thin')
    t.match(again, { state: 'attached' })
    t.equal(await md5Direct(again.device!), sum)
  },
)

t.test('with nothing to hold and no agent the keeper ends', async (t) => {
  t.not(keeperPid(agent), undefined)
  for (const { name } of await agent.cli<VolumeView[]>('volume', 'list')) await agent.cli('volume', 'detach', name)
  await agent.terminate()
  await agent.until(
    async () => keeperPid(agent),
    (pid) => pid === undefined,
  )
  await command('losetup', '--detach', disk)
})

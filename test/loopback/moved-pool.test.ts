/**
 * A pool whose volumes are in a stream goes to another agent, is written there, and comes back: what the stream's journal
 * has from before is older than what is there now.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { PoolView, VolumeView } from '../../src/api/agent-operations.js'
import { Agent, flush, mirror } from '../fixtures/agent.js'
import { command, difference, farPath } from '../fixtures/sites.js'
import { createPool, thinVolume, twoThinSites } from '../fixtures/thin-sites.js'

const pieceBytes = 65_536
// Nothing but the end of the agent, and of the first copy, makes the volumes hold what the journal has.
const sourceConfig = 'journal:\n  checkpoint: 1m\n'
const sites = await twoThinSites(t, { sourceConfig })
const { source, folder } = sites
const copy = join(folder, 'piece')
const standby = await Agent.start(t, folder, 'standby')

/** A piece of the volume becomes this letter alone, durably. */
async function write(device: string, piece: number, letter: string): Promise<void> {
  writeFileSync(copy, letter.repeat(pieceBytes))
  const how = ['bs=64k', `seek=${piece}`, 'oflag=direct', 'conv=fsync,notrunc', 'status=none']
  await command('dd', `if=${copy}`, `of=${device}`, ...how)
}

/** The letters of which a piece consists. */
async function written(device: string, piece: number): Promise<string> {
  await command('dd', `if=${device}`, `of=${copy}`, 'bs=64k', 'iflag=direct', 'count=1', `skip=${piece}`, 'status=none')
  return [...new Set(readFileSync(copy, 'latin1'))].join('')
}

async function attached(agent: Agent, volume: string): Promise<string> {
  const { device } = await agent.cli<VolumeView>('volume', 'attach', volume)
  if (device === null) throw new Error(`${volume} has no device`)
  return device
}

/** A stream of a volume in a pool of its own. */
async function recorded(name: string): Promise<string> {
  await createPool(source, folder, name)
  const device = await thinVolume(source, name, '4MiB', name)
  await mirror(source, name, [name])
  await write(device, 0, 'a')
  await flush(source, name)
  return device
}

const poolFile = (name: string): string => join(folder, `${name}.img`)

async function timesDiverged(name: string): Promise<number> {
  return (await source.events()).filter(({ code, object }) => code === 'STREAM_DIVERGED' && object === name).length
}

/** The other agent has the pool, and a host there writes and flushes. @returns what it was told of the pool */
async function usedElsewhere(name: string): Promise<string> {
  const { reason } = await standby.cli<PoolView>('pool', 'import', poolFile(name))
  const there = await attached(standby, name)
  await write(there, 0, 'b')
  await write(there, 3, 'b')
  await standby.cli('volume', 'detach', name)
  return reason
}

async function saysWhatItLacks(name: string): Promise<boolean> {
  return (await standby.events()).some(({ code, object }) => code === 'POOL_LACKS_WRITES' && object === name)
}

/** What was written elsewhere is there, the stream says so, and begins anew. */
async function divergedAndInitialized(t: Test, name: string): Promise<void> {
  const view = await source.until(
    () => source.streamStatus(name),
    ({ state }) => state !== 'failed',
  )
  t.match(view, { state: 'diverged', reason: /Another agent has had.*Run: tidemark stream initialize/, generation: 1 })
  t.equal(await timesDiverged(name), 1, 'said once')
  const device = await attached(source, name)
  t.equal(await written(device, 0), 'b', 'the journal was not written over what is newer')
  t.equal(await written(device, 3), 'b')
  const far = await farPath(sites, name)
  t.equal(await written(far, 0), 'a', 'nothing of it was sent as if it followed')
  await source.cli('stream', 'initialize', name, '--wait')
  await write(device, 1, 'c')
  await flush(source, name)
  t.equal(await difference(device, await farPath(sites, name)), '')
  await source.stop()
  await source.start()
  t.match(
    await source.until(
      () => source.streamStatus(name),
      ({ state }) => state === 'replicating',
    ),
    { generation: 2 },
    'a restart alone is no other holder',
  )
  t.equal(await timesDiverged(name), 1)
  t.equal(await written(await attached(source, name), 1), 'c')
}

for (const [how, name] of [
  ['is killed with writes in its journal', 'moved-killed'],
  ['is stopped in order', 'moved-stopped'],
] as const) {
  t.test(`its agent ${how}, the pool is written elsewhere and comes back`, async (t) => {
    await recorded(name)
    const killed = name === 'moved-killed'
    await (killed ? source.killWithDevices() : source.stop())
    const told = await usedElsewhere(name)
    t.match(
      told,
      killed ? 'moved-killed (stream moved-killed): of these volumes flushed writes may be missing' : /space is free$/,
    )
    t.equal(await saysWhatItLacks(name), killed)
    await standby.cli('pool', 'export', name)
    await source.start()
    t.ok(
      (await source.events()).some(({ code, object }) => code === 'POOL_WAS_ELSEWHERE' && object === name),
      'an event says it of the pool',
    )
    await divergedAndInitialized(t, name)
  })
}

t.test('the same when its agent starts while the pool is away, and imports it later', async (t) => {
  const name = 'moved-later'
  await recorded(name)
  await source.killWithDevices()
  await usedElsewhere(name)
  await source.start()
  t.match(await source.streamStatus(name), { state: 'failed', reason: /VOLUME_AWAY/ })
  await standby.cli('pool', 'export', name)
  await source.cli('pool', 'import', poolFile(name))
  await divergedAndInitialized(t, name)
})

t.test('a pool that nobody else had goes on where it was, also when it was given up in between', async (t) => {
  const name = 'moved-alone'
  await recorded(name)
  await source.killWithDevices()
  renameSync(poolFile(name), `${poolFile(name)}.away`)
  await source.start()
  t.match(await source.streamStatus(name), { state: 'failed', reason: /VOLUME_AWAY/ })
  await source.cli('pool', 'export', name)
  renameSync(`${poolFile(name)}.away`, poolFile(name))
  await source.cli('pool', 'import', poolFile(name))
  t.match(
    await source.until(
      () => source.streamStatus(name),
      ({ state }) => state === 'replicating',
    ),
    { generation: 1 },
  )
  t.equal(await timesDiverged(name), 0)
  const device = await attached(source, name)
  t.equal(await written(device, 0), 'a')
  await write(device, 1, 'c')
  await flush(source, name)
  t.equal(await difference(device, await farPath(sites, name)), '')
  await source.cli('stream', 'remove', name)
  await source.killWithDevices()
  await usedElsewhere(name)
  t.notOk(await saysWhatItLacks(name), 'without a stream flushes reach the pool')
})

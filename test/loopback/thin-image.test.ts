/**
 * A complete image of a thin volume as the source of a stream: what it weighs, on both sides, and that each refresh of it
 * appears at the far side at once, whatever it is cut into.
 */
import { execFileSync } from 'node:child_process'
import t from 'tap'
import type { SnapshotView, VolumeView } from '../../src/api/agent-operations.js'
import { GiB, MiB } from '../../src/block/units.js'
import { delay, flush, mirror } from '../fixtures/agent.js'
import { command, difference, farPath } from '../fixtures/sites.js'
import {
  farPool,
  farVolume,
  poolFacts,
  sourcePool,
  thinVolume,
  twoThinSites,
  withSnapshot,
} from '../fixtures/thin-sites.js'

const unitBytes = 8 * MiB
const sites = await twoThinSites(t, { poolSize: '6GiB' })
const { source, destination } = sites

function within(bytes: number, expected: number): boolean {
  return bytes >= expected && bytes <= expected * 1.02
}

function writeRandom(device: string, seekMiB: number, countMiB: number): void {
  execFileSync('dd', [
    'if=/dev/urandom',
    `of=${device}`,
    'bs=1M',
    `seek=${seekMiB}`,
    `count=${countMiB}`,
    'oflag=direct',
    'conv=notrunc',
    'status=none',
  ])
}

const show = (name: string): Promise<VolumeView> => source.cli<VolumeView>('volume', 'show', name)
let origin = ''

t.test('3 GiB with 1.25 GiB of data weigh 1.25 GiB: here, as a complete image, and at the far side', async (t) => {
  origin = await thinVolume(source, 'seed', '3GiB')
  const dataBytes = 1.25 * GiB
  writeRandom(origin, 0, 1024)
  writeRandom(origin, 2500, 256)
  t.ok(within((await poolFacts(source, sourcePool)).mappedBytes, dataBytes))
  t.ok(within((await show('seed')).allocatedBytes!, dataBytes), 'the volume')
  await source.cli('clone', 'create', 'seed', 'seed-copy', '--full', '--wait')
  const copy = await show('seed-copy')
  t.match(copy, { sizeBytes: 3 * GiB, image: { volume: 'seed', complete: true } })
  t.ok(within(copy.allocatedBytes!, dataBytes), `the image: ${copy.allocatedBytes}`)
  const { device } = await source.cli<VolumeView>('volume', 'attach', 'seed-copy', '--read-only')
  t.equal(await difference(origin, device!), '')
  await source.cli('volume', 'detach', 'seed-copy')

  await mirror(source, 'seed-gold', ['seed-copy'], '1s')
  await flush(source, 'seed-gold')
  const far = await poolFacts(destination, farPool)
  t.ok(within(far.mappedBytes, dataBytes), `mapped at the destination: ${far.mappedBytes}`)
  t.ok(within(far.allocatedBytes, dataBytes), `allocated there: ${far.allocatedBytes}`)
  t.equal(await difference(origin, await farPath(sites, 'seed-gold')), '')
})

t.test('a snapshot at the destination begins at one unit', async (t) => {
  const far = await farVolume(sites, 'seed-gold')
  const before = await poolFacts(destination, farPool)
  await destination.cli('snapshot', 'create', far, 'first')
  t.equal((await poolFacts(destination, farPool)).allocatedBytes, before.allocatedBytes, 'at nothing, to be exact')
  writeRandom(origin, 10, 1)
  await source.cli('clone', 'refresh', 'seed-copy', '--wait')
  await flush(source, 'seed-gold')
  const after = await poolFacts(destination, farPool)
  t.ok(after.allocatedBytes - before.allocatedBytes <= unitBytes, 'and with what is written next at one unit')
  t.equal(await difference(origin, await farPath(sites, 'seed-gold')), '')
  const [view] = await destination.cli<SnapshotView[]>('snapshot', 'list', far)
  t.match(view, { name: 'first' })
})

/** Snapshots of the far side, about one an epoch, until told to stop: each is kept for a look. */
async function watch(far: string, isOver: () => boolean): Promise<string[]> {
  const names: string[] = []
  while (!isOver()) {
    const name = `w${names.length}`
    const { code, errorCode } = await destination.run('snapshot', 'create', far, name)
    if (code === 0) names.push(name)
    else if (errorCode !== 'BETWEEN_EPOCHS') throw new Error(`snapshot create: ${errorCode}`)
    await delay(1000)
  }
  return names
}

async function sums(far: string, names: readonly string[]): Promise<string[]> {
  const found: string[] = []
  for (const name of names) {
    const sum = await withSnapshot(destination, far, name, (device) =>
      command('bash', '-c', 'dd "if=$1" bs=1M count=400 iflag=direct status=none | md5sum', 'sum', device),
    )
    found.push(sum.split(' ')[0]!)
    await destination.cli('snapshot', 'remove', far, name)
  }
  return found
}

t.test('a refresh far larger than an epoch appears at the far side at once', async (t) => {
  const far = await farVolume(sites, 'seed-gold')
  writeRandom(origin, 0, 300)
  const before = await source.streamStatus('seed-gold')
  let over = false
  const watching = watch(far, () => over)
  await source.cli('clone', 'refresh', 'seed-copy', '--wait')
  await flush(source, 'seed-gold')
  over = true
  const names = await watching
  const after = await source.streamStatus('seed-gold')
  t.ok(after.epoch.cut - before.epoch.cut > 5, `it was cut into ${after.epoch.cut - before.epoch.cut} epochs`)
  const seen = await sums(far, names)
  t.comment(`${seen.length} looks`)
  t.ok(new Set(seen).size <= 2, `the far side showed ${new Set(seen).size} states: before and after`)
  t.equal(await difference(origin, await farPath(sites, 'seed-gold')), '')
})

t.test('a refresh that the agent does not survive is done again, and nothing in between is shown', async (t) => {
  const far = await farVolume(sites, 'seed-gold')
  await destination.cli('snapshot', 'create', far, 'before')
  writeRandom(origin, 0, 300)
  await source.cli('clone', 'refresh', 'seed-copy')
  await source.until(
    () => show('seed-copy'),
    ({ image }) => (image?.progress?.doneBytes ?? 0) > 64 * MiB,
    60_000,
  )
  await source.kill()
  await delay(1500)
  await destination.cli('snapshot', 'create', far, 'dead')
  const [first, second] = await sums(far, ['before', 'dead'])
  t.equal(second, first, 'half a refresh is not seen')
  await source.start()
  await source.until(
    () => show('seed-copy'),
    ({ image }) => image?.complete === true,
    120_000,
  )
  await flush(source, 'seed-gold')
  const { device } = await show('seed')
  const { device: copy } = await source.cli<VolumeView>('volume', 'attach', 'seed-copy', '--read-only')
  t.equal(await difference(copy!, await farPath(sites, 'seed-gold')), '')
  t.equal(await difference(copy!, device!), '', 'nothing was written to the source meanwhile')
  await source.cli('volume', 'detach', 'seed-copy')
})

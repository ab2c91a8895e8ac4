import { join } from 'node:path'
import t from 'tap'
import { GiB, MiB } from '../../src/block/units.js'
import { fio, startFio } from '../fixtures/fio.js'
import type { PoolError } from '../pool/model/pool-child.js'
import { run, ThinRig } from './thin-rig.js'

const delay = (milliseconds: number) => new Promise<void>((resolve) => setTimeout(resolve, milliseconds))
const direct = ['oflag=direct', 'status=none']
const verified = { verify: 'crc32c', verify_fatal: 1, bs: '64k' } as const

async function until(what: string, holds: () => Promise<boolean>, limitMs = 60_000): Promise<void> {
  for (const end = Date.now() + limitMs; !(await holds()); await delay(50)) {
    if (Date.now() > end) throw new Error(`not within ${limitMs} ms: ${what}`)
  }
}

/** Bytes a host could read and write so far. */
async function progress(rig: ThinRig, volume: string): Promise<number> {
  const { readBytes, writtenBytes } = await rig.counters(volume)
  return readBytes! + writtenBytes!
}

/** Write until the pool has passed each of its marks, and has told so. */
async function fillTo(rig: ThinRig, device: string, marks: readonly number[]): Promise<void> {
  const step = 2 * MiB
  let written = 0
  for (const mark of marks) {
    for (;;) {
      const { allocatedBytes, sizeBytes } = await rig.child.pool('facts')
      if ((100 * allocatedBytes) / sizeBytes >= mark) break
      await run('dd', 'if=/dev/urandom', `of=${device}`, `bs=${step}`, 'count=1', `seek=${written / step}`, ...direct)
      written += step
    }
    await until(`the mark of ${mark} % is told`, async () =>
      (await rig.child.own('events')).some(({ text }) => text.includes(`mark of ${mark} %`)),
    )
  }
}

t.test('a full pool makes writes wait, not those in place; after extend everything goes on', async (t) => {
  const rig = await ThinRig.create(t, 'thin-full', {
    devices: [{ sizeBytes: 192 * MiB }],
    unitBytes: MiB,
    settings: { waitForSpaceMs: 60_000, marks: [50, 70, 90] },
  })
  const inPlace = await rig.attach('in-place', 16 * MiB)
  t.equal((await fio(inPlace, { ...verified, rw: 'write', size: '16m' })).errors, 0)
  const device = await rig.attach('files', GiB)
  await run('mkfs.ext4', '-q', device)
  await fillTo(rig, await rig.attach('ballast', 256 * MiB), [50, 70, 90])
  t.equal((await rig.child.pool('facts')).state, 'nearly-full')
  const refusal = await rig.child.pool('createSnapshot', 'in-place', 'late').catch((error: PoolError) => error)
  t.match(refusal, { code: 'POOL_NEARLY_FULL' }, 'snapshots are refused before writes are')
  await rig.mounted([device], 'files', async (directory) => {
    const job = { ...verified, rw: 'randwrite', size: '320m', fallocate: 'none' }
    const writing = startFio(join(directory, 'data'), job)
    await until('the pool is full', async () => (await rig.child.pool('facts')).state === 'full')

    await delay(300)
    const stuckAt = await progress(rig, 'files')
    const beside = await fio(inPlace, { ...verified, rw: 'randwrite', size: '16m', loops: 2 })
    t.equal(beside.errors, 0, beside.errors ? beside.output : 'writes in place go on')
    await delay(700)
    t.equal(await progress(rig, 'files'), stuckAt, 'the others wait')

    await rig.child.pool('extend', join(rig.folder, 'more'), 512 * MiB)
    rig.paths.push(join(rig.folder, 'more'))
    const result = await writing.ended
    t.equal(result.errors, 0, result.errors ? result.output : 'no host saw an error')
    t.equal((await rig.child.pool('facts')).state, 'online')
  })
  await run('e2fsck', '-fn', device)
  for (const name of ['files', 'in-place', 'ballast'])
    t.equal((await rig.counters(name)).errors, 0, `no errors on ${name}`)
  await rig.detach('files')
  await rig.detach('in-place')
  await rig.detach('ballast')
  await rig.close()
})

t.test('after the set time a write without room fails with ENOSPC, and the file system can be mended', async (t) => {
  const rig = await ThinRig.create(t, 'thin-enospc', {
    devices: [{ sizeBytes: 128 * MiB }],
    unitBytes: MiB,
    settings: { waitForSpaceMs: 1000 },
  })
  await rig.attach('ballast', 256 * MiB)
  const device = await rig.attach('files', GiB)
  await run('mkfs.ext4', '-q', device)
  let kept = ''
  await rig.mounted([device], 'files', async (directory) => {
    await run('dd', 'if=/dev/urandom', `of=${directory}/kept`, 'bs=1M', 'count=16', 'conv=fsync', 'status=none')
    kept = await run('md5sum', `${directory}/kept`)
    const begin = Date.now()
    const result = await fio(join(directory, 'data'), { rw: 'write', bs: '64k', size: '320m', fallocate: 'none' })
    t.not(result.errors, 0)
    t.match(result.output, /No space left on device/, 'the host is told why')
    t.ok(Date.now() - begin > 1000)
  })
  await rig.child.pool('removeVolume', 'ballast').catch((error: PoolError) => t.equal(error.code, 'VOLUME_OPEN'))
  await rig.detach('ballast')
  await rig.child.pool('removeVolume', 'ballast')
  await rig.child.pool('extend', join(rig.folder, 'more'), 256 * MiB)
  rig.paths.push(join(rig.folder, 'more'))
  // Refused were also its own tables: how much of a file that was never synced it has to cut off is its affair.
  await run('e2fsck', '-fy', device).catch((error: { code: number; stdout: string }) =>
    t.equal(error.code, 1, `mended: ${error.stdout}`),
  )
  await run('e2fsck', '-fn', device)
  await rig.mounted([device], 'files', async (directory) => {
    t.equal(await run('md5sum', `${directory}/kept`), kept, 'what was synced before is there')
    const result = await fio(join(directory, 'again'), { ...verified, rw: 'write', size: '64m' })
    t.equal(result.errors, 0, result.errors ? result.output : 'it can be written again')
  })
  await run('e2fsck', '-fn', device)
  await rig.detach('files')
  await rig.close()
})

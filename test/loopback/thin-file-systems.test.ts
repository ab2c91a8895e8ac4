import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { GiB, KiB, MiB } from '../../src/block/units.js'
import { startFio } from '../fixtures/fio.js'
import { run, ThinRig } from './thin-rig.js'

const rig = await ThinRig.create(t, 'thin-file-systems', {
  devices: [{ sizeBytes: 768 * MiB }, { sizeBytes: GiB, loop: true }, { sizeBytes: GiB }],
  blockBytes: 64 * KiB,
  unitBytes: 4 * MiB,
})

const snapshots = 3
const load = {
  ...{ verify: 'crc32c', verify_fatal: 1, serialize_overlap: 1, fallocate: 'none', size: '96m', iodepth: 8 },
  ...{ rw: 'randwrite', bssplit: '4k/60:64k/30:256k/10', verify_interval: 4096, rate: '24m' },
}

interface Kind {
  readonly name: string
  readonly make: readonly string[]
  readonly check: readonly string[]
  /** For a second file system with the same id. */
  readonly options: string
}
const kinds: readonly Kind[] = [
  { name: 'ext4', make: ['mkfs.ext4', '-q'], check: ['e2fsck', '-fn'], options: 'rw' },
  { name: 'xfs', make: ['mkfs.xfs', '-q'], check: ['xfs_repair', '-n'], options: 'nouuid' },
  { name: 'btrfs', make: ['mkfs.btrfs', '-q'], check: ['btrfs', 'check', '--readonly'], options: 'rw' },
]

async function digest(file: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(file))
    .digest('hex')
}

for (const { name, make, check, options } of kinds) {
  t.test(`${name} on a thin volume reads back what fio wrote, and its snapshots under load are whole`, async (t) => {
    const device = await rig.attach(name, 512 * MiB)
    await run(make[0]!, ...make.slice(1), device)
    const digests: string[] = []
    await rig.mounted([device], name, async (directory) => {
      const writing = startFio(join(directory, 'load'), load)
      for (let count = 0; count < snapshots; count++) {
        const file = join(directory, `complete-${count}`)
        await run('dd', 'if=/dev/urandom', `of=${file}`, 'bs=100k', 'count=31', 'conv=fsync', 'status=none')
        await run('sync', directory)
        digests.push(await digest(file))
        await rig.child.pool('createSnapshot', name, `s${count}`)
      }
      const result = await writing.ended
      t.equal(result.errors, 0, result.errors ? result.output : 'fio read back what it wrote')
    })
    await run(check[0]!, ...check.slice(1), device)
    t.equal((await rig.counters(name)).errors, 0)
    await rig.detach(name)

    for (let count = 0; count < snapshots; count++) {
      const clone = `${name}-${count}`
      await rig.child.pool('createClone', clone, name, `s${count}`)
      const copy = await rig.attach(clone)
      await rig.mounted(['-o', options, copy], clone, async (directory) => {
        for (let file = 0; file <= count; file++) {
          t.equal(await digest(join(directory, `complete-${file}`)), digests[file], `file ${file} in snapshot ${count}`)
        }
      })
      await run(check[0]!, ...check.slice(1), copy)
      await rig.detach(clone)
      await rig.child.pool('removeVolume', clone)
    }
    for (let count = 0; count < snapshots; count++) await rig.child.pool('removeSnapshot', name, `s${count}`)
    await rig.child.pool('removeVolume', name)
  })
}

t.test('nothing is left in the pool', async (t) => {
  for (let waited = 0; (await rig.child.pool('facts')).background !== null && waited < 100; waited++) {
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  t.match(await rig.child.pool('facts'), { allocatedBytes: 0, mappedBytes: 0, state: 'online' })
  await rig.close()
})

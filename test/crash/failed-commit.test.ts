/**
 * ext4's journal fails to commit, and who asked for that is told. What lies in the same transaction is lost as well, and whoever
 * syncs it afterwards must be told so; fdatasync() says yes: native/sys/data_sync.h.
 */
import { execFileSync } from 'node:child_process'
import { mkdir, open, rename, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { syncDirectory } from '../../src/block/durable-file.js'
import { MiB } from '../../src/block/units.js'
import { Backing } from '../../src/volume/backing.js'
import { badDisk } from '../fixtures/bad-disk.js'
import { scratchFolder } from '../fixtures/paths.js'
import type { PowerCutDevice } from '../fixtures/power-cut.js'
import { Rig } from '../intercept/rig.js'

async function sparse(file: string): Promise<string> {
  await writeFile(file, '')
  await truncate(file, MiB)
  return file
}

/** @returns two sparse files of 1 MiB, durable, on an ext4 */
async function files(t: Test, disk: PowerCutDevice): Promise<{ file: string; other: string }> {
  await disk.format('ext4')
  await disk.mount()
  t.teardown(() => disk.drop())
  const file = await sparse(join(disk.mountPoint, 'file'))
  const other = await sparse(join(disk.mountPoint, 'other'))
  execFileSync('sync', ['--file-system', file])
  return { file, other }
}

/** Blocks of both get their places in one transaction, which fails. */
async function failCommit(disk: PowerCutDevice, file: string, other: string): Promise<void> {
  for (const each of [file, other]) {
    execFileSync(
      'dd',
      ['if=/dev/urandom', `of=${each}`, 'bs=4096', 'count=1', 'seek=5', 'oflag=direct', 'conv=notrunc'],
      {
        stdio: 'ignore',
      },
    )
  }
  await disk.fail('flush', 0, 1)
  const handle = await open(other, 'r+')
  await handle.datasync().then(
    () => {
      throw new Error('the commit did not fail')
    },
    () => undefined,
  )
  await handle.close()
}

t.test(
  'a volume does not believe a sync after a commit that held its blocks has failed for somebody else',
  async (t) => {
    const disk = await badDisk(t, scratchFolder(t, 'failed-commit'), 'disk', 64 * MiB)
    const { file, other } = await files(t, disk)
    const rig = await Rig.open()
    t.teardown(() => rig.close())
    const volume = rig.volume(file)
    await volume.syncBacking()
    await failCommit(disk, file, other)
    await t.rejects(volume.syncBacking(), { code: 'IO_FAILED' })
  },
)

t.test('what is applied to an image is not called durable after such a commit', async (t) => {
  const disk = await badDisk(t, scratchFolder(t, 'failed-commit'), 'disk', 64 * MiB)
  const { file, other } = await files(t, disk)
  const image = new Backing(file, 'write')
  t.teardown(() => image.close())
  image.sync()
  await failCommit(disk, file, other)
  t.throws(() => image.sync(), { code: 'BACKING_UNAVAILABLE' })
})

t.test('nor is a name in a folder', async (t) => {
  const disk = await badDisk(t, scratchFolder(t, 'failed-commit'), 'disk', 64 * MiB)
  const { file, other } = await files(t, disk)
  const folder = join(disk.mountPoint, 'folder')
  await mkdir(folder)
  await syncDirectory(folder)
  await rename(file, join(folder, 'file'))
  await failCommit(disk, join(folder, 'file'), other)
  await t.rejects(syncDirectory(folder), { code: 'EROFS' })
})

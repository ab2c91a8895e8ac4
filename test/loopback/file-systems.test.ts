import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { flush, mirror } from '../fixtures/agent.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { repositoryRoot } from '../fixtures/paths.js'
import { command, difference, farPath, twoSites } from '../fixtures/sites.js'

const sites = await twoSites(t)
const { source, folder } = sites

/** Use a file system as people do: a tree, a big file, deletions, overwrites, a sync in the middle. */
async function use(mountPoint: string): Promise<void> {
  await command('cp', '-a', join(repositoryRoot, 'src'), join(mountPoint, 'tree'))
  await command('dd', 'if=/dev/urandom', `of=${mountPoint}/big`, 'bs=1M', 'count=12', 'conv=fsync', 'status=none')
  await command('cp', '-a', join(mountPoint, 'tree'), join(mountPoint, 'again'))
  await command('rm', '-r', join(mountPoint, 'tree'))
  await command(
    'dd',
    'if=/dev/zero',
    `of=${mountPoint}/big`,
    'bs=4k',
    'seek=100',
    'count=50',
    'conv=notrunc',
    'status=none',
  )
  await command('sync', '-f', mountPoint)
  writeFileSync(join(mountPoint, 'last'), 'the last file\n')
}

async function mounted(what: readonly string[], use: (mountPoint: string) => Promise<void>): Promise<void> {
  const path = join(folder, 'mounted')
  mkdirSync(path, { recursive: true })
  remember({ kind: 'mount', path })
  try {
    await command('mount', ...what, path)
    await use(path)
  } finally {
    await command('umount', path)
    forget({ kind: 'mount', path })
  }
}

const kinds: [string, string, string[]][] = [
  ['ext4', '128MiB', ['mkfs.ext4', '-q']],
  ['xfs', '320MiB', ['mkfs.xfs', '-q']],
  ['btrfs', '128MiB', ['mkfs.btrfs', '-q']],
]
for (const [kind, size, [make, ...options]] of kinds) {
  t.test(`${kind} is mirrored byte for byte`, async (t) => {
    const { device } = await source.volume(folder, kind, size)
    await mirror(source, kind, [kind])
    await command(make!, ...options, device)
    await mounted([device], use)
    await flush(source, kind)
    const copy = await farPath(sites, kind)
    t.equal(await difference(device, copy), '')
    await mounted(['-o', kind === 'xfs' ? 'ro,nouuid,loop' : 'ro,loop', copy], async (path) => {
      t.ok(existsSync(join(path, 'last')) && existsSync(join(path, 'again/README.md')), 'and readable there')
    })
    await source.cli('stream', 'remove', kind)
    await source.cli('volume', 'detach', kind)
  })
}

t.test('a file system in use is initialised without being stopped', async (t) => {
  const { device } = await source.volume(folder, 'live', '128MiB')
  await command('mkfs.ext4', '-q', device)
  await mounted([device], async (path) => {
    await use(path)
    await mirror(source, 'live', ['live'])
    await command('rm', '-r', join(path, 'again'))
    await use(path)
  })
  await flush(source, 'live')
  t.equal(await difference(device, await farPath(sites, 'live')), '')
})

t.test('a partitioned disk is mirrored byte for byte', async (t) => {
  const { device } = await source.volume(folder, 'parts', '128MiB')
  await mirror(source, 'parts', ['parts'])
  const layout = 'label: gpt\nstart=2048,size=65536\nstart=67584,size=131072\n'
  await command('bash', '-c', 'printf "$1" | sfdisk -q --no-reread --no-tell-kernel "$2"', 'sfdisk', layout, device)
  await command('mkfs.ext4', '-q', '-E', 'offset=1048576', device, '32768k')
  await mounted(['-o', 'loop,offset=1048576,sizelimit=33554432', device], async (path) => {
    writeFileSync(join(path, 'first'), 'on the first partition\n')
    await command('cp', '-a', join(repositoryRoot, 'src'), path)
  })
  await flush(source, 'parts')
  const copy = await farPath(sites, 'parts')
  t.equal(await difference(device, copy), '')
  t.match(await command('sfdisk', '--dump', copy), /start= *67584, size= *131072/)
})

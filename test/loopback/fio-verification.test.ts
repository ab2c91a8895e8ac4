import { closeSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Agent } from '../fixtures/agent.js'
import { fio } from '../fixtures/fio.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command, md5Direct } from '../fixtures/sites.js'

const folder = scratchFolder(t, 'fio')
const agent = await Agent.start(t, folder)
const { device, path } = await agent.volume(folder, 'disk', '96MiB')

const verified = { verify: 'crc32c', verify_fatal: 1, size: '64m' }
const jobs: [string, Record<string, string | number | true>][] = [
  ['random writes of 4 KiB', { rw: 'randwrite', bs: '4k' }],
  ['random reads and writes', { rw: 'randrw', bs: '4k' }],
  [
    'mixed sizes of 512 B to 1 MiB',
    { rw: 'randwrite', bssplit: '512/20:4k/30:32k/20:256k/20:1m/10', verify_interval: 512, serialize_overlap: 1 },
  ],
  ['any size between 512 B and 1 MiB', { rw: 'randwrite', bsrange: '512-1m', verify_interval: 512 }],
  ['sequential writes of 1 MiB', { rw: 'write', bs: '1m' }],
  ['writes over trimmed blocks in random order', { rw: 'randtrimwrite', bs: '64k' }],
  ['writes over trimmed blocks in order', { rw: 'trimwrite', bs: '64k' }],
]
for (const [title, job] of jobs) {
  t.test(`${title} read back as they were written`, async (t) => {
    const result = await fio(device, { ...verified, ...job })
    t.equal(result.errors, 0, result.errors ? result.output : 'no errors')
    t.ok(result.writtenBytes >= 20e6, 'it wrote')
    t.ok(result.readBytes >= result.writtenBytes, 'it read all of it back')
  })
}

t.test('a trimmed range reads as zeros and its neighbours stay', async (t) => {
  await command('dd', 'if=/dev/urandom', `of=${device}`, 'bs=1M', 'count=8', 'oflag=direct', 'status=none')
  const before = readAt(device, 0, 8 << 20)
  await command('blkdiscard', '--offset', '1052672', '--length', '2097152', device)
  const expected = Buffer.from(before)
  expected.fill(0, 1052672, 1052672 + 2097152)
  t.ok(readAt(device, 0, 8 << 20).equals(expected), 'trim')
  await command('blkdiscard', '--zeroout', '--offset', '5242880', '--length', '65536', device)
  expected.fill(0, 5242880, 5242880 + 65536)
  t.ok(readAt(device, 0, 8 << 20).equals(expected), 'zero range')
})

t.test('after detach the backing holds what the device showed', async (t) => {
  const through = await md5Direct(device)
  await agent.cli('volume', 'detach', 'disk')
  t.equal(await md5Direct(path), through)
})

t.test('an adopted file keeps its bytes', async (t) => {
  const flat = join(folder, 'flat.img')
  await command('dd', 'if=/dev/urandom', `of=${flat}`, 'bs=1M', 'count=16', 'status=none')
  const before = await md5Direct(flat)
  await agent.cli('volume', 'adopt', 'flat', '--path', flat)
  const attached = await agent.cli<{ device: string }>('volume', 'attach', 'flat')
  t.equal(await md5Direct(attached.device), before)
  await agent.cli('volume', 'detach', 'flat')
  await agent.cli('volume', 'remove', 'flat')
  t.equal(await md5Direct(flat), before)
})

t.test('a raw block device is adopted, verified through, and trusted on its own afterwards', async (t) => {
  const disk = join(folder, 'raw-disk')
  await command('truncate', '-s', '64M', disk)
  const raw = await command('losetup', '--find', '--show', '--direct-io=on', disk)
  t.teardown(() => command('losetup', '-d', raw).catch(() => undefined))
  await agent.cli('volume', 'adopt', 'raw', '--path', raw)
  const attached = await agent.cli<{ device: string }>('volume', 'attach', 'raw')
  const result = await fio(attached.device, { rw: 'randwrite', bs: '16k', ...verified, size: '48m' })
  t.equal(result.errors, 0, result.errors ? result.output : 'no errors')
  const through = await md5Direct(attached.device)
  await agent.cli('volume', 'detach', 'raw')
  t.equal(await md5Direct(raw), through)
  await agent.cli('volume', 'remove', 'raw')
})

function readAt(file: string, offset: number, length: number): Buffer {
  const fd = openSync(file, 'r')
  try {
    const bytes = Buffer.alloc(length)
    readSync(fd, bytes, 0, length, offset)
    return bytes
  } finally {
    closeSync(fd)
  }
}

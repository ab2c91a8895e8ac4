import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { newPairing } from '../../src/transport/pairing.js'
import { formatPairing } from '../../src/transport/pairing-string.js'
import { Agent } from '../fixtures/agent.js'
import { remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import { PowerCutDevice } from '../fixtures/power-cut.js'

const lengthBytes = 256 * 1024

t.test('what was written before an initialisation and flushed after it survives a power cut', async (t) => {
  const folder = scratchFolder(t, 'flushed-without-journal')
  const place = join(folder, 'disk')
  mkdirSync(place)
  remember({ kind: 'folder', path: place })
  const disk = await PowerCutDevice.start(place, 128 * MiB, 4096)
  t.teardown(() => disk.close())
  await disk.format('ext4')
  await disk.mount()
  const agent = await Agent.start(t, disk.mountPoint, 'state')
  const name = 'flushed-without'
  const { device, path } = await agent.volume(disk.mountPoint, name, `${MiB}`)
  const write = (letter: string, flags: string): void => {
    const fill = `head -c ${lengthBytes} /dev/zero | tr '\\0' ${letter}`
    const to = `dd of=${device} bs=64K iflag=fullblock oflag=direct status=none conv=notrunc${flags}`
    execFileSync('bash', ['-c', `${fill} | ${to}`])
  }
  // What has its place in the file already is written back when the kernel likes.
  write('A', ',fsync')
  const between = join(folder, 'between')
  mkdirSync(between)
  const pairing = newPairing({ kind: 'folder', directory: between })
  await agent.cli('destination', 'add', 'far', '--pairing', formatPairing(pairing))
  await agent.cli('stream', 'create', name, '--volume', name, '--destination', 'far')
  write('B', '')
  await agent.cli('stream', 'initialize', name)
  const host = await open(device, 'r+')
  await host.sync()
  await host.close()
  const flushedAt = await disk.position()
  await agent.killWithDevices()
  await disk.unmount()
  // Nothing behind the last flush has reached the disk.
  for (let seed = 1, kept = 1; kept > 0; seed++) {
    const cut = await disk.cut(flushedAt, seed, 4096)
    kept = cut.kept + cut.partial
  }
  await disk.mount()
  const seen = readFileSync(path).subarray(0, lengthBytes)
  await disk.unmount()
  t.ok(seen.equals(Buffer.alloc(lengthBytes, 'B')), `it holds ${String.fromCharCode(...new Set(seen))}`)
})

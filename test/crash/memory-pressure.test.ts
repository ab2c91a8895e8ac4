/** A device that a program serves must not wait for itself: its hosts' dirty pages are all the memory there is. */
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { MiB } from '../../src/block/units.js'
import { Agent, flush, mirror, pair } from '../fixtures/agent.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { MemoryGroup } from '../fixtures/memory-group.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command, difference, farPath, type Sites } from '../fixtures/sites.js'
import { createPool, thinVolume } from '../fixtures/thin-sites.js'

/** A hang is told from a machine under load. */
const hangMs = 90_000

/** The exit code of a shell, and what it printed. @throws when it hangs */
function shell(script: string): Promise<string> {
  const child = spawn('bash', ['-c', `set -o pipefail; ${script}`], { stdio: ['ignore', 'pipe', 'pipe'] })
  const left = { kind: 'process', pid: child.pid! } as const
  remember(left)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (text) => {
      output += text
    })
  }
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`hangs: ${output}`)), hangMs)
    child.on('close', (code, signal) => {
      clearTimeout(late)
      forget(left)
      resolve(`${code ?? signal} ${output.trim()}`.trim())
    })
  })
}

/** Bytes that are no two times the same in a volume, and the same in every run. */
const bytes = (key: string, megabytes: number) =>
  `openssl enc -aes-128-ctr -nosalt -K ${Buffer.from(key.padEnd(16, '.')).toString('hex')} -iv 0 -in /dev/zero 2>/dev/null | head -c ${megabytes}M`

/** Write through the page cache of a file system on the device, then read back what lies on the device. */
async function dirty(
  t: Test,
  group: MemoryGroup,
  folder: string,
  name: string,
  device: string,
  megabytes: number,
): Promise<void> {
  const tree = join(folder, `tree-${name}`)
  mkdirSync(tree)
  await command('mkfs.ext4', '-q', '-F', device)
  remember({ kind: 'mount', path: tree })
  await command('mount', device, tree)
  const source = bytes(name, megabytes)
  const begun = performance.now()
  // The writer alone is in the group: what makes the bytes is not what the kernel takes when it finds no page.
  const writer = group.script(`exec dd of=${tree}/file bs=256k iflag=fullblock conv=fsync status=none`)
  const written = await shell(`( ${source} || true ) | bash -c "${writer.replaceAll('$', '\\$')}"`)
  t.equal(written, '0', `${name}: the writer ends, without an error`)
  t.comment(
    `${name}: ${megabytes} MiB in ${Math.round(performance.now() - begun)} ms, limit reached ${group.limitReached} times`,
  )
  await command('umount', tree)
  await command('mount', '-o', 'ro', device, tree)
  const [read, meant] = await Promise.all([shell(`md5sum < ${tree}/file`), shell(`( ${source} || true ) | md5sum`)])
  t.equal(read, meant, `${name}: what is read is what was written`)
  await command('umount', tree)
  forget({ kind: 'mount', path: tree })
}

/** CAP_SYS_RESOURCE, number 24. */
function mayFlush(): boolean {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]!
  return ((BigInt(`0x${mask}`) >> 24n) & 1n) === 1n
}

/** @param group what the source runs in */
async function sites(t: Test, name: string, group?: MemoryGroup): Promise<Sites> {
  const folder = scratchFolder(t, name)
  const between = join(folder, 'between')
  mkdirSync(between)
  writeFileSync(join(folder, 'source.yaml'), 'journal:\n  segment: 8MiB\n')
  const begin = () => Agent.start(t, folder, 'source', ['--config', join(folder, 'source.yaml')])
  const source = await (group === undefined ? begin() : group.around(begin))
  const destination = await Agent.start(t, folder, 'destination')
  await pair(source, destination, { via: 'folder', folder: between })
  return { folder, source, destination }
}

/** A mirrored volume with a path and a thin one, in use at the same time. */
async function dirtyBoth(t: Test, group: MemoryGroup, prefix: string, both: Sites, megabytes: number): Promise<void> {
  const { folder, source } = both
  const [path, thin] = [`${prefix}-path`, `${prefix}-thin`]
  await createPool(source, folder, `${prefix}-pool`, '2GiB')
  const { device } = await source.volume(folder, path, `${megabytes * 2}MiB`)
  const thinDevice = await thinVolume(source, thin, `${megabytes * 2}MiB`, `${prefix}-pool`)
  await mirror(source, prefix, [path, thin])
  await Promise.all([
    dirty(t, group, folder, path, device, megabytes),
    dirty(t, group, folder, thin, thinDevice, megabytes),
  ])
  t.equal(group.kills, 0, 'nobody was killed')
  t.ok(group.limitReached > 100, 'memory was short')
  await flush(source, prefix)
  t.equal(await difference(device, await farPath(both, prefix, path)), '', 'the far side has the same')
  t.equal(await difference(thinDevice, await farPath(both, prefix, thin)), '', 'the far side has the same')
}

t.test('hosts dirty four times the memory they have, while their agent has little of its own', async (t) => {
  const hosts = MemoryGroup.make(t, 'hosts', 64 * MiB)
  const agents = MemoryGroup.make(t, 'agents', 384 * MiB)
  const both = await sites(t, 'pressure', agents)
  await dirtyBoth(t, hosts, 'pressure', both, 128)
  t.equal(agents.kills, 0, 'nothing of the agent was killed')
  const [said] = (await both.source.events()).filter(({ code }) => code === 'MEMORY_NOT_PROTECTED')
  t.equal(/may wait in an allocation/.test(said?.text ?? ''), !mayFlush(), 'it says what it is not permitted')
})

// Without the privilege it does wait for itself here, at least in a control group of version 1.
if (mayFlush()) {
  t.test('an agent that shares what memory there is with its hosts serves on', async (t) => {
    const shared = MemoryGroup.make(t, 'shared', 416 * MiB)
    await dirtyBoth(t, shared, 'shared', await sites(t, 'shared', shared), 512)
  })
}

/** Where the agent's own folders may not lie, and where they had better not. */
import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { StreamView } from '../../src/api/agent-operations.js'
import { Agent } from '../fixtures/agent.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command } from '../fixtures/sites.js'

async function tree(t: Test, device: string, path: string): Promise<() => Promise<void>> {
  mkdirSync(path, { recursive: true })
  await command('mkfs.ext4', '-q', '-F', device)
  await command('mount', device, path)
  const left = { kind: 'mount', path } as const
  remember(left)
  let over = false
  const unmount = async (): Promise<void> => {
    if (over) return
    over = true
    await command('umount', path)
    forget(left)
  }
  t.teardown(unmount)
  return unmount
}

/** An ext4 of its own in a file below `folder`, which gives the loop device back with the test. */
async function disk(folder: string, name: string, megabytes: number): Promise<string> {
  const file = join(folder, name)
  writeFileSync(file, '')
  truncateSync(file, megabytes << 20)
  return command('losetup', '--find', '--show', file)
}

/** Sends to itself: nothing is sent in this test. */
async function pairWithItself(agent: Agent, folder: string): Promise<void> {
  mkdirSync(join(folder, 'between'))
  const { pairing } = await agent.cli<{ pairing: string }>('pairing', 'create', '--folder', join(folder, 'between'))
  await agent.cli('destination', 'add', 'far', '--pairing', pairing)
}

t.test('a buffer on a volume of the agent is refused, through a chain of loop devices too', async (t) => {
  const folder = scratchFolder(t, 'placement')
  const buffer = join(folder, 'buffer')
  mkdirSync(buffer)
  writeFileSync(join(folder, 'agent.yaml'), `buffer:\n  directory: ${buffer}/inner\n`)
  const agent = await Agent.start(t, folder, 'agent', ['--config', join(folder, 'agent.yaml')])
  await pairWithItself(agent, folder)
  const { device } = await agent.volume(folder, 'placed', '96MiB')
  const create = ['stream', 'create', 'placed', '--volume', 'placed', '--destination', 'far']

  const direct = await tree(t, device, buffer)
  const refused = await agent.run(...create)
  t.equal(refused.errorCode, 'ON_OWN_VOLUME')
  t.match(refused.stderr, /buffer directory lies on the volume placed/)
  await direct()

  const outer = await tree(t, device, join(folder, 'outer'))
  const loop = await disk(join(folder, 'outer'), 'inner.img', 48)
  const chained = await tree(t, loop, buffer)
  t.equal((await agent.run(...create)).errorCode, 'ON_OWN_VOLUME', 'a file on the volume carries it')
  await chained()
  await command('losetup', '--detach', loop)
  await outer()

  const stream = await agent.cli<StreamView>(...create)
  const warned = (await agent.events()).filter(({ code }) => code === 'BUFFER_SHARES_DISK')
  t.equal(warned.length, 1, 'volume and buffer are files of one file system')
  t.ok(stream.buffer.sharedDisk, `the disk has a name: ${stream.buffer.sharedDisk}`)
  t.ok(warned[0]!.text.includes(stream.buffer.sharedDisk!))
  t.match((await agent.runPlain('stream', 'status', 'placed')).stdout, /shares the disk/)

  const again = await tree(t, device, join(folder, 'outer'))
  const move = await agent.run('buffer', 'move', 'placed', join(folder, 'outer/deep/er'))
  t.equal(move.errorCode, 'ON_OWN_VOLUME', 'nor can it be moved there')
  t.equal((await agent.streamStatus('placed')).buffer.directory, stream.buffer.directory)
  await again()

  const apart = `/dev/shm/tidemark-placement-${process.pid}.img`
  t.teardown(() => rmSync(apart, { force: true }))
  await agent.cli('volume', 'create', 'placed-apart', '--path', apart, '--size', '1MiB')
  const other = await agent.cli<StreamView>(
    'stream',
    'create',
    'apart',
    '--volume',
    'placed-apart',
    '--destination',
    'far',
  )
  t.equal(other.buffer.sharedDisk, null, 'memory is no disk of the buffer')
})

t.test('a device that carries the state directory cannot become a volume', async (t) => {
  const folder = scratchFolder(t, 'placement-state')
  remember({ kind: 'folder', path: folder })
  const loop = await disk(folder, 'state.img', 96)
  t.teardown(() => command('losetup', '--detach', loop))
  const mounted = join(folder, 'state')
  const unmount = await tree(t, loop, mounted)
  const agent = new Agent(mounted, 'agent')
  await agent.start()
  const refused = await agent.run('volume', 'adopt', 'placed-state', '--path', loop)
  t.equal(refused.errorCode, 'ON_OWN_VOLUME')
  t.match(refused.stderr, /state directory/)
  t.equal(
    (await agent.run('volume', 'adopt', 'placed-file', '--path', join(folder, 'state.img'))).errorCode,
    'DEVICE_BUSY',
  )
  await agent.stop()
  await unmount()
})

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { AgentEvent, StreamView, VolumeView } from '../../src/api/agent-operations.js'
import { Agent, flush, mirror, tidemark } from '../fixtures/agent.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { command, difference, farPath, twoSites } from '../fixtures/sites.js'
import { stampVerify, stampWrite } from '../fixtures/stamp.js'

const sites = await twoSites(t, 'folder')
const { source, destination, folder } = sites
const good = await source.volume(folder, 'good', '16MiB')

type Asserts = Pick<typeof t, 'equal' | 'match' | 'same'>

/** Refused: exit code 1, this code, one line that says what to do; and the lists are what they were. */
async function refused(t: Asserts, code: string | RegExp, ...parameters: string[]): Promise<void> {
  const before = await lists()
  const plain = await source.runPlain(...parameters)
  t.equal(plain.code, 1, 'exit code')
  t.equal(plain.stdout, '', 'nothing is printed as a result')
  t.match(plain.stderr, /^tidemark: .+\. .+\n$/, 'one line: what, and what to do')
  const json = await source.run(...parameters)
  t.match(json.errorCode, code)
  t.match(json.stderr, /"hint":"\S/)
  t.same(await lists(), before, 'nothing half-made')
}

async function lists(): Promise<unknown> {
  const volumes = (await source.get<VolumeView[]>('volumes')).map(({ name, state }) => [name, state])
  const streams = (await source.get<StreamView[]>('streams')).map(({ name }) => name)
  const destinations = (await source.get<{ name: string }[]>('destinations')).map(({ name }) => name)
  return { volumes, streams, destinations, buffer: entries(join(source.state, 'buffer')) }
}

const entries = (path: string): string[] => (existsSync(path) ? readdirSync(path).sort() : [])
const image = (name: string): string => join(folder, name)

t.test('what does not exist is named', async (t) => {
  for (const verb of ['attach', 'detach', 'show', 'remove'])
    await refused(t, 'NO_SUCH_VOLUME', 'volume', verb, 'nobody')
  for (const verb of ['initialize', 'status', 'flush', 'pause', 'resume', 'remove'])
    await refused(t, 'NO_SUCH_STREAM', 'stream', verb, 'nobody')
  for (const verb of ['test', 'remove']) await refused(t, 'NO_SUCH_DESTINATION', 'destination', verb, 'nobody')
  await refused(t, 'NO_SUCH_STREAM', 'inbound', 'show', 'nobody')
  await refused(t, 'NO_SUCH_VOLUME', 'stream', 'create', 's', '--volume', 'nobody', '--destination', 'far')
  await refused(t, 'NO_SUCH_DESTINATION', 'stream', 'create', 's', '--volume', 'good', '--destination', 'nowhere')
  await refused(t, 'NOT_FOUND', 'volume', 'adopt', 'v', '--path', image('missing'))
  await refused(t, 'NOT_FOUND', 'volume', 'create', 'v', '--path', join(folder, 'no/such/v'), '--size', '1MiB')
  await refused(t, 'NOT_FOUND', 'pairing', 'create', '--folder', join(folder, 'no-such-folder'))
})

t.test('a size that is no multiple of 512 makes no volume and no file', async (t) => {
  for (const size of ['1000', '0', '-512', '1MiBs', '1e6', '99999999999TiB', ''])
    await refused(t, /BAD_SIZE|BAD_REQUEST/, 'volume', 'create', 'v', '--path', image('v'), `--size=${size}`)
  t.notOk(existsSync(image('v')))
  writeFileSync(image('odd'), Buffer.alloc(1000))
  await refused(t, 'BAD_SIZE', 'volume', 'adopt', 'v', '--path', image('odd'))
  t.equal(readFileSync(image('odd')).length, 1000)
})

t.test('a name that could be something else is refused', async (t) => {
  for (const name of ['../up', 'a/b', '.hidden', 'a b', 'x'.repeat(64), 'a..b', 'new\nline', 'vol\r\nDELE x'])
    await refused(t, 'BAD_NAME', 'volume', 'create', name, '--path', image('v'), '--size', '1MiB')
  t.notOk(existsSync(image('v')))
})

t.test('what is there is not overwritten', async (t) => {
  writeFileSync(image('precious'), 'x'.repeat(4096))
  await refused(t, 'ALREADY_EXISTS', 'volume', 'create', 'v', '--path', image('precious'), '--size', '1MiB')
  t.equal(readFileSync(image('precious'), 'utf8'), 'x'.repeat(4096))
  await refused(t, 'ALREADY_EXISTS', 'volume', 'create', 'good', '--path', image('v'), '--size', '1MiB')
  await refused(t, 'ALREADY_A_VOLUME', 'volume', 'adopt', 'again', '--path', good.path)
  const disk = await loop('formatted', '32M')
  await command('mkfs.ext4', '-q', disk)
  await refused(t, 'DATA_PRESENT', 'volume', 'create', 'v', '--path', disk, '--size', '16MiB')
})

t.test('a path the agent uses itself is refused', async (t) => {
  await refused(t, 'PATH_IN_BUFFER', 'volume', 'create', 'v', '--path', join(source.state, 'v'), '--size', '1MiB')
  mkdirSync(join(source.state, 'buffer'), { recursive: true })
  await refused(
    t,
    'PATH_IN_BUFFER',
    'volume',
    'create',
    'v',
    '--path',
    join(source.state, 'buffer/v'),
    '--size',
    '1MiB',
  )
  t.notOk(existsSync(join(source.state, 'buffer/v')))
  await refused(t, 'NOT_A_FILE_OR_BLOCK_DEVICE', 'volume', 'adopt', 'v', '--path', folder)
})

t.test('a mounted or busy device is refused and stays as it is', async (t) => {
  const disk = await loop('in-use', '32M')
  await command('mkfs.ext4', '-q', disk)
  const path = join(folder, 'mounted')
  mkdirSync(path)
  remember({ kind: 'mount', path })
  await command('mount', disk, path)
  await refused(t, 'DEVICE_BUSY', 'volume', 'adopt', 'v', '--path', disk)
  await command('umount', path)
  forget({ kind: 'mount', path })
  // A volume's own device, and a file that another loop device has.
  await refused(t, /DEVICE_BUSY|ALREADY_A_VOLUME/, 'volume', 'adopt', 'v', '--path', image('in-use'))
})

t.test('a volume in use is neither detached nor removed', async (t) => {
  await command('mkfs.ext4', '-q', good.device)
  const path = join(folder, 'mounted-volume')
  mkdirSync(path)
  remember({ kind: 'mount', path })
  await command('mount', good.device, path)
  await refused(t, 'DEVICE_BUSY', 'volume', 'detach', 'good')
  await refused(t, 'VOLUME_ATTACHED', 'volume', 'remove', 'good')
  writeFileSync(join(path, 'still'), 'it works')
  await command('umount', path)
  forget({ kind: 'mount', path })
})

t.test('a bad pairing string is refused', async (t) => {
  const { pairing } = await destination.cli<{ pairing: string }>(
    'pairing',
    'create',
    '--folder',
    join(folder, 'between'),
  )
  const changed = `${pairing.slice(0, 40)}${pairing[40] === 'A' ? 'B' : 'A'}${pairing.slice(41)}`
  for (const text of [
    'hello',
    'tidemark1-',
    changed,
    pairing.slice(0, -2),
    `${pairing}A`,
    `tidemark9-${pairing.slice(10)}`,
  ])
    await refused(t, 'BAD_PAIRING', 'destination', 'add', 'bad', '--pairing', text)
  t.notMatch(source.log(), new RegExp(pairing.slice(20, 60)), 'and it is in no log')
})

t.test('a stream takes each volume once and no volume of another stream', async (t) => {
  await source.cli('stream', 'create', 'taken', '--volume', 'good', '--destination', 'far')
  await refused(t, 'VOLUME_IN_USE', 'stream', 'create', 'other', '--volume', 'good', '--destination', 'far')
  await refused(t, 'ALREADY_EXISTS', 'stream', 'create', 'taken', '--volume', 'good', '--destination', 'far')
  await refused(t, 'DESTINATION_IN_USE', 'destination', 'remove', 'far')
  await source.cli('stream', 'remove', 'taken')
  await refused(t, /BAD_/, 'stream', 'create', 'x', '--volume', 'good', '--volume', 'good', '--destination', 'far')
})

t.test('wrong usage is exit code 2 and names the right one', async (t) => {
  for (const parameters of [
    ['volume', 'create', 'v'],
    ['volume', 'explode'],
    ['stream', 'create'],
    ['--no-such-option'],
  ]) {
    const result = await source.runPlain(...parameters)
    t.equal(result.code, 2)
    t.match(result.stderr, /usage: tidemark|Usage: tidemark/)
  }
})

t.test('a second agent on the same state directory is refused, the first goes on', async (t) => {
  const second = await tidemark(['agent', '--state', source.state])
  t.equal(second.code, 1)
  t.match(second.stderr, /^tidemark: .*STATE_LOCKED.*\. .+\n$/)
  t.equal((await source.run('agent', 'show')).code, 0)
})

t.test('a foreign file in the arrival folder is left alone and named; the stream goes on', async (t) => {
  await mirror(source, 'clean', ['good'])
  const arrival = await arrivalFolder()
  const foreign = { 'holiday.jpg': Buffer.from('not ours'), 'zzz.tmr': Buffer.alloc(5000, 7) }
  for (const [name, bytes] of Object.entries(foreign)) writeFileSync(join(arrival, name), bytes)
  const run = await stampWrite(good.device, image('foreign.log'), { writes: 50 })
  t.equal(run.errno, 0)
  await flush(source, 'clean')
  t.equal(await difference(good.device, await farPath(sites, 'clean')), '')
  const named = (events: AgentEvent[], name: string) =>
    events.filter(({ code, text }) => code === 'FOREIGN_FILE' && text.includes(join(arrival, name)))
  for (const [name, bytes] of Object.entries(foreign)) {
    const events = await destination.until(
      () => destination.events(),
      (events) => named(events, name).length > 0,
    )
    t.equal(named(events, name).length, 1, `one event names ${name}`)
    t.ok(readFileSync(join(arrival, name)).equals(bytes), `${name} is left as it is`)
  }
})

t.test('a damaged replication file is set aside, named, never applied, and sent again', async (t) => {
  await destination.stop()
  const log = image('damaged.log')
  await command(
    'dd',
    'if=/dev/zero',
    `of=${good.device}`,
    'bs=1M',
    'oflag=direct',
    'conv=notrunc',
    'count=16',
    'status=none',
  )
  await stampWrite(good.device, log, { writes: 200, sizes: '4096-65536' })
  await source.run('stream', 'flush', 'clean')
  const arrival = await arrivalFolder()
  const arrived = () => readdirSync(arrival).filter((name) => /^\d.*\.tm/.test(name) || /\.tmr$/.test(name))
  await source.until(
    async () => arrived().filter((name) => name !== 'zzz.tmr').length,
    (count) => count > 0,
  )
  const victim = arrived()
    .filter((name) => name !== 'zzz.tmr')
    .sort()[0]!
  const bytes = readFileSync(join(arrival, victim))
  bytes[bytes.length >> 1]! ^= 1
  writeFileSync(join(arrival, victim), bytes)
  await destination.start()
  await flush(source, 'clean')
  const copy = await farPath(sites, 'clean')
  t.equal(await difference(good.device, copy), '')
  t.match(stampVerify(copy, log, { requireAll: true }), { ok: true })
  const named = (await destination.events()).filter(({ text, object }) => `${object} ${text}`.includes(victim))
  t.ok(named.length > 0, `an event names ${victim}`)
  t.ok(
    named.every(({ severity }) => severity !== 'info'),
    'as a fault',
  )
})

t.test('an agent with no room for its journal refuses the stream and keeps serving the volume', async (t) => {
  const small = join(folder, 'small')
  mkdirSync(small)
  remember({ kind: 'mount', path: small })
  await command('mount', '-t', 'tmpfs', '-o', 'size=12m', 'tidemark-test', small)
  const agent = new Agent(small, 'agent')
  t.teardown(async () => {
    await agent.stop()
    await command('umount', '-l', small)
    forget({ kind: 'mount', path: small })
  })
  await agent.start()
  const { device } = await agent.volume(folder, 'cramped', '16MiB')
  const { pairing } = await destination.cli<{ pairing: string }>(
    'pairing',
    'create',
    '--folder',
    join(folder, 'between'),
  )
  await agent.cli('destination', 'add', 'far', '--pairing', pairing)
  const create = await agent.run('stream', 'create', 'cramped', '--volume', 'cramped', '--destination', 'far')
  const initialize = create.code === 0 ? await agent.run('stream', 'initialize', 'cramped', '--wait') : create
  t.equal(initialize.code, 1)
  t.equal(initialize.errorCode, 'JOURNAL_NO_SPACE', initialize.stderr)
  const run = await stampWrite(device, image('cramped.log'), { writes: 100 })
  t.equal(run.errno, 0, 'its host writes on')
})

async function arrivalFolder(): Promise<string> {
  const found = await command('find', join(folder, 'between'), '-mindepth', '2', '-maxdepth', '2', '-type', 'd')
  const { id } = await source.streamStatus('clean')
  const path = found.split('\n').find((name) => name.includes(id)) ?? found.split('\n')[0]
  if (!path) throw new Error('no arrival folder')
  return path
}

async function loop(name: string, size: string): Promise<string> {
  await command('truncate', '-s', size, image(name))
  const device = await command('losetup', '--find', '--show', image(name))
  t.teardown(() => command('losetup', '-d', device).catch(() => undefined))
  return device
}

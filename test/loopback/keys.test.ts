/** What the keys of a pairing are never seen in: logs, events, answers, command lines, dumps, and files but their own. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join, sep } from 'node:path'
import t from 'tap'
import { deriveStreamSecret } from '../../src/replication-file/keys.js'
import { bearerToken } from '../../src/transport/pairing-keys.js'
import { parsePairing } from '../../src/transport/pairing-string.js'
import { Agent, delay, flush, freePort, mirror } from '../fixtures/agent.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command } from '../fixtures/sites.js'

const folder = scratchFolder(t, 'keys')
const source = await Agent.start(t, folder, 'source')
const destination = await Agent.start(t, folder, 'destination')
const { pairing } = await destination.cli<{ pairing: string }>(
  ...['pairing', 'create', '--listen', `127.0.0.1:${await freePort()}`],
)

/** Every way that a key could be written. */
function spellings(name: string, key: Buffer): [string, Buffer][] {
  const texts = (['hex', 'base64', 'base64url'] as const).map((encoding) => key.toString(encoding).replace(/=+$/, ''))
  return [key, ...texts.map((text) => Buffer.from(text))].map((spelling) => [name, spelling])
}

/** @returns the names of the keys that are in it */
function keysIn(text: string | Buffer, keys: readonly [string, Buffer][]): string[] {
  const bytes = Buffer.from(text as string)
  return keys.filter(([, spelling]) => bytes.includes(spelling)).map(([name]) => name)
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map((name) => join(directory, name))
    .filter((file) => statSync(file).isFile())
}

function childrenOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
  return children === '' ? [] : children.split(' ').map(Number)
}

t.test('the keys are in no log, event, answer, command line, dump or file but their own', async (t) => {
  const { device } = await source.volume(folder, 'keys', '16MiB')
  await source.cli('destination', 'add', 'far', '--pairing', pairing)
  await mirror(source, 's', ['keys'])
  await command(
    'dd',
    'if=/dev/urandom',
    `of=${device}`,
    'bs=1M',
    'count=4',
    'oflag=direct',
    'conv=fsync',
    'status=none',
  )
  await flush(source, 's')
  const parsed = parsePairing(pairing)
  const streamFolder = join(destination.state, 'inbox', parsed.id.toString('hex'))
  const [streamId] = readdirSync(streamFolder)
  const keys: [string, Buffer][] = [
    ...spellings('the secret of the pairing', parsed.secret),
    ...spellings('the secret of the stream', deriveStreamSecret(parsed.secret, Buffer.from(streamId!, 'hex'))),
    ...spellings('the token', Buffer.from(bearerToken(parsed), 'hex')),
    ['the pairing', Buffer.from(pairing.slice(-60))],
  ]
  t.same(keysIn(readFileSync(join(source.state, 'destinations/far')), keys), ['the pairing'], 'they would be found')

  // What makes agents say more than they do every day.
  await source.run('destination', 'add', 'again', '--pairing', pairing.slice(0, -3))
  await source.run('destination', 'add', 'far', '--pairing', pairing)
  await source.cli('destination', 'test', 'far')
  await destination.kill()
  await command(
    'dd',
    'if=/dev/urandom',
    `of=${device}`,
    'bs=1M',
    'count=1',
    'oflag=direct',
    'conv=fsync',
    'status=none',
  )
  await delay(1500)
  await destination.start()
  await flush(source, 's')

  for (const agent of [source, destination]) {
    const pids = [agent.pid, ...childrenOf(agent.pid)]
    t.ok(pids.length > 1, 'it has workers')
    for (const pid of pids) {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
      t.same(keysIn(words + readFileSync(`/proc/${pid}/environ`, 'latin1'), keys), [], words)
      const limit = /^Max core file size +(\S+) +(\S+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))
      t.same(limit?.slice(1), ['1', '1'], `no dump of ${words}`)
    }
    for (const view of ['agent', 'destinations', 'streams', 'streams/s', 'volumes', 'inbound', 'inbound/s']) {
      const answer = await agent.get(...view.split('/')).catch(String)
      t.same(keysIn(JSON.stringify(answer), keys), [], view)
    }
    // And what `run` serves is the hosts'.
    const own = ['destinations', 'pairings', 'own', 'run'].map((name) => join(agent.state, name) + sep)
    const others = filesBelow(agent.state).filter((file) => !own.some((place) => file.startsWith(place)))
    t.ok(others.some((file) => file.endsWith('events.ndjson')) && others.some((file) => file.endsWith('state.0')))
    for (const file of [...others, agent.logFile]) t.same(keysIn(readFileSync(file), keys), [], file)
  }
})

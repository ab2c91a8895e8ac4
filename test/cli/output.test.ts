import path from 'node:path'
import t from 'tap'
import { StorageError } from '../../src/block/storage-error.js'
import { privateFolder, startFakeApi } from '../api/fake-api.js'
import { event, inboundView, volumeView } from '../api/fake-operations.js'
import { fakeProgram, runCli } from './run-cli.js'

t.setTimeout(400_000)

t.test('what the agent refuses is one line: what, which object, what to do', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  const error = () =>
    new StorageError('VOLUME_BUSY', {
      op: 'volume detach',
      object: 'db',
      hint: 'Unmount it.',
      cause: new Error('in\nuse \u001b[31m'),
    })
  operations.failNext = error()
  const plain = await runCli(['volume', 'detach', 'db'], { socketPath })
  t.equal(plain.stderr, 'tidemark: volume detach db: VOLUME_BUSY (in\\x0ause \\x1b[31m). Unmount it.\n')
  t.match(plain, { code: 1, stdout: '' })
  operations.failNext = error()
  const json = await runCli(['volume', 'detach', 'db', '--json'], { socketPath })
  t.match(json, { code: 1, stdout: '' })
  t.same(JSON.parse(json.stderr), { error: error().toJSON() })
  operations.failNext = new Error('boom')
  t.match(await runCli(['volume', 'list'], { socketPath }), { code: 1, stderr: /^tidemark: .*INTERNAL.*\n$/ })
  for (const name of ['../x', '-x', 'a\u001b[2Jb', '..', 'x'.repeat(3000)]) {
    const outcome = await runCli(['volume', 'show', '--', name], { socketPath })
    t.match(outcome, { code: 1, stderr: /^tidemark: volume .*BAD_NAME.*\n$/ }, name.slice(0, 20))
  }
})

t.test('nothing from names, paths and reasons reaches the terminal but visible characters', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  const hostile = 'x\u001b]0;owned\u0007\u001b[2J\r\n\u009b31m\u202etxt\u2028\u200b<img onerror=1>'
  operations.volumes = [{ ...volumeView('db'), name: hostile, path: `/${hostile}`, reason: hostile, stream: hostile }]
  operations.volumes.push({ ...operations.volumes[0]!, name: 'db' })
  operations.destinations = [
    { ...operations.destinations[0]!, name: hostile, endpoint: hostile, reason: hostile, streams: [hostile] },
  ]
  operations.states = [{ name: hostile, reason: hostile, volumes: [hostile], destination: hostile }]
  operations.inbound = [{ ...inboundView(hostile), reason: hostile, appliedTime: hostile }]
  operations.pastEvents = [{ ...event(1, hostile), object: hostile, code: hostile }]
  const printed = /^[\x20-\x7e\n]*$/
  for (const line of [
    'volume list',
    'volume show db',
    'destination list',
    'stream status',
    'stream status s',
    'inbound list',
    'events',
  ]) {
    const plain = await runCli(line.split(' '), { socketPath })
    t.match(plain.stdout, printed, line)
    t.match(plain.stdout, 'x\\x1b]0;owned\\x07\\x1b[2J\\x0d\\x0a\\x9b31m\\u{202e}txt\\u{2028}\\u{200b}<img', line)
    const json = await runCli([...line.split(' '), '--json'], { socketPath })
    t.match(json.stdout, printed, line)
    t.ok(
      JSON.stringify(JSON.parse(json.stdout)).includes(JSON.stringify(hostile).slice(1, -1)),
      `${line}: the value is unchanged`,
    )
  }
})

t.test('the agent and inspect run in this process, with whole paths', async (t) => {
  const directory = privateFolder(t)
  const run = (...words: string[]) => runCli(words, { program: fakeProgram, directory })
  t.same((await run('agent')).json, { stateDirectory: '/var/lib/tidemark' })
  t.same((await run('agent', '--state', 's')).json, { stateDirectory: path.join(directory, 's') })
  t.equal(
    (await run('agent', '--config', 'c')).stderr,
    `tidemark: agent ${directory}/c: BAD_CONFIG (line\\x0a3). Mend it.\n`,
  )
  t.match(await run('agent', '--config', 'broken'), { code: 1, stderr: /^tidemark: .*a fault\\x0aof ours \\x1b.*\n$/ })
  const [asked, record] = (await run('inspect', 'f', '--json', '--state', 's')).stdout.split('\n')
  t.same(JSON.parse(asked!), { file: path.join(directory, 'f'), stateDirectory: path.join(directory, 's'), json: true })
  t.equal(record, '{"name":"\\u007f\\u009b\\u202e"}')
  t.match((await run('inspect', 'f')).stdout, 'record \\x1b[2J\\x9b1m end\n')
  t.match((await run('keeper', 'list', '--state', '/srv/none')).stdout, 'No device is held.\n')
  const held = await run('keeper', 'list', '--agent', '/srv/t/agent.sock')
  t.match(
    held.stdout,
    /^NAME +DEVICE +SIZE +ACCESS +STATE\ndb +\/dev\/loop7 +64\.0 MiB +read-write +waits\nin\\x1b.*\/srv\/t /,
  )
  t.match((await run('keeper', 'list', '--json')).json, [{ name: 'db', state: 'waits' }, { readOnly: true }])
  t.match(await run('keeper', 'abort', 'db'), { code: 0, stdout: /its host gets I\/O errors/ })
  const unknown = await run('keeper', 'abort', 'other', '--state', 's')
  t.equal(unknown.stderr, `tidemark: keeper abort other: NO_SUCH_DEVICE. Not in ${path.join(directory, 's')}.\n`)
  t.equal((await run('--version')).stdout, '1.2.3\n')
})

import { chmodSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { privateFolder, startFakeApi } from '../api/fake-api.js'
import { event, inboundView, streamView, volumeView } from '../api/fake-operations.js'
import { type CommandRow, checkCommands } from './command-table.js'
import { runCli } from './run-cli.js'

t.setTimeout(400_000)

const attached = { ...volumeView('db'), state: 'attached', device: '/dev/loop7', link: '/dev/tidemark/db' }
const backup = { name: 'backup', kind: 'https', endpoint: 'b:7443', state: 'up', reason: 'answers', streams: ['gold'] }

const table: readonly CommandRow[] = [
  ['agent show', ['agent'], { version: '0.1.0', pid: 42 }, /^Version: +0\.1\.0\nProcess: +42\n/],
  [
    'volume adopt db --path /dev/sdb',
    ['volumeAdopt', { name: 'db', path: '/dev/sdb' }],
    { name: 'db', path: '/dev/sdb' },
    /in place/,
  ],
  [
    'volume create db --path /x --size 2GiB',
    ['volumeCreate', { name: 'db', path: '/x', sizeBytes: 2 * 1024 ** 3 }],
    { name: 'db', sizeBytes: 2 * 1024 ** 3 },
    /2\.0 GiB, empty/,
  ],
  [
    'volume create db --force --size 512 --path /x',
    ['volumeCreate', { name: 'db', path: '/x', sizeBytes: 512, force: true }],
    { name: 'db' },
    /512 B/,
  ],
  ['volume attach db', ['volumeAttach', 'db', false], attached, /attached as \/dev\/loop7 \(\/dev\/tidemark\/db\)/],
  [
    'volume attach gold.db',
    ['volumeAttach', 'gold.db', false],
    { name: 'gold.db', role: 'inbound', readOnly: true, reason: 'serves its host; it is torn' },
    /attached read-only as .*: serves its host; it is torn\n$/,
  ],
  ['volume attach db --read-only', ['volumeAttach', 'db', true], { readOnly: true }, /attached read-only as/],
  ['volume detach db', ['volumeDetach', 'db'], volumeView('db'), /detached; its data are in \/srv\/db\.img/],
  [
    'volume list',
    ['volumeList'],
    [{ name: 'db', sizeBytes: 1024 ** 3, device: null }],
    /^NAME {2}SIZE {5}STATE {5}DEVICE {2}STREAM {2}WHERE\ndb {4}1\.0 GiB {2}detached {2}- {7}- {7}\/srv\/db\.img\n$/,
  ],
  ['volume show db', ['volumeShow', 'db'], volumeView('db'), /^Writes: +2 \(6\.0 KiB\)$/m],
  ['volume remove db', ['volumeRemove', 'db', false], { name: 'db', removed: true }, /at a path stays there/],
  ['volume remove db --yes', ['volumeRemove', 'db', true], { name: 'db', removed: true }, /./],
  ['pairing create', ['pairingCreate', { kind: 'https' }], { pairing: 'tidemark1:c2VjcmV0' }, /^tidemark1:c2VjcmV0\n$/],
  [
    'pairing create --listen h:7443',
    ['pairingCreate', { kind: 'https', listen: 'h:7443' }],
    { pairing: 'tidemark1:c2VjcmV0' },
    /^tidemark1:c2VjcmV0\n$/,
  ],
  [
    'pairing create --ftp ftp://u:p@h/d --inbox /in',
    ['pairingCreate', { kind: 'ftp', url: 'ftp://u:p@h/d', inbox: '/in' }],
    { pairing: 'tidemark1:c2VjcmV0' },
    /./,
  ],
  [
    'pairing create --folder /f',
    ['pairingCreate', { kind: 'folder', directory: '/f' }],
    { pairing: 'tidemark1:c2VjcmV0' },
    /./,
  ],
  [
    'destination add d --pairing abc',
    ['destinationAdd', { name: 'd', pairing: 'abc' }],
    { ...backup, name: 'd' },
    /Destination d is b:7443/,
  ],
  ['destination list', ['destinationList'], [backup], /^backup {2}https {2}up {5}b:7443 {4}gold {5}answers$/m],
  [
    'destination test d',
    ['destinationTest', 'd'],
    { name: 'd', roundTripMs: 1.25 },
    /works: https:\/\/b:7443, 1\.3 ms/,
  ],
  ['destination remove d', ['destinationRemove', 'd'], { name: 'd', removed: true }, /stays there/],
  [
    'stream create s --volume a --volume b --destination d --epoch 500ms',
    ['streamCreate', { name: 's', volumes: ['a', 'b'], destination: 'd', epochMs: 500 }],
    { name: 's', volumes: ['a', 'b'] },
    /Stream s: a, b to d/,
  ],
  [
    'stream create s --volume a --destination d',
    ['streamCreate', { name: 's', volumes: ['a'], destination: 'd' }],
    { name: 's' },
    /./,
  ],
  [
    'stream create s --volume a --destination d --policy strict --wait 5s',
    ['streamCreate', { name: 's', volumes: ['a'], destination: 'd', policy: { kind: 'strict', waitMs: 5000 } }],
    { name: 's' },
    /./,
  ],
  [
    'stream set s --policy strict --wait 1m',
    ['streamSet', 's', { kind: 'strict', waitMs: 60_000 }],
    { policy: 'strict', waitMs: 60_000 },
    /policy strict: when the journal is full writes wait 1 min, then fail/,
  ],
  ['stream set s --policy degrade', ['streamSet', 's', { kind: 'degrade' }], { policy: 'degrade' }, /policy degrade/],
  [
    'buffer move s /srv/other',
    ['bufferMove', 's', '/srv/other'],
    { buffer: { directory: '/srv/other', move: null } },
    /The buffer of stream s is in/,
  ],
  ['buffer abort s', ['bufferMove', 's', null], { name: 's' }, /The buffer of stream s is in/],
  ['stream initialize s', ['streamInitialize', 's', false], { state: 'initializing' }, /initializing: copying/],
  ['stream status s', ['streamStatus', 's'], streamView('s'), /^Oldest unsent: +1 min 15 s$/m],
  [
    'stream status',
    ['streamList'],
    [streamView('gold')],
    /^gold {2}replicating {2}4\.0 KiB {2}1 min 15 s {2}1\.0 MiB\/s {2}1 B {3}backup {7}db {7}all is sent$/m,
  ],
  [
    'stream flush s',
    ['streamFlush', 's'],
    { epoch: 12, lsn: '18446744073709551615' },
    /epoch 12 is closed at LSN 18446744073709551615/,
  ],
  [
    'stream verify s',
    ['streamVerify', 's', true],
    { verify: { state: 'comparing' } },
    /^differed: db, 65536 bytes at 131072\nStream s: comparing: 1\.0 MiB of 4\.0 MiB compared \(25 %\), 64\.0 KiB differed\. Follow/,
  ],
  ['stream verify s --no-repair', ['streamVerify', 's', false], { verify: { state: 'comparing' } }, /./],
  ['stream verify s --abort', ['streamVerify', 's', null], { verify: { state: 'aborted' } }, /^Stream s: aborted: /],
  ['stream pause s', ['streamPause', 's'], { state: 'paused' }, /paused; writes collect/],
  ['stream resume s', ['streamResume', 's'], { state: 'replicating' }, /replicating: all is sent/],
  ['stream remove s', ['streamRemove', 's', false], { name: 's', removed: true }, /copy at the destination stay/],
  ['stream initialize s --discard-journal', ['streamInitialize', 's', true], { state: 'initializing' }, /copying/],
  ['stream remove s --discard-journal', ['streamRemove', 's', true], { name: 's', removed: true }, /is forgotten/],
  [
    'inbound list',
    ['inboundList'],
    [inboundView('gold')],
    /^gold {4}consistent {2}3 {6}2026-01-02T03:04:05\.000Z {2}0 {6}db {7}up to date$/m,
  ],
  ['inbound remove gold', ['inboundRemove', 'gold', false], { stream: 'gold', removed: true }, /./],
  [
    'inbound remove gold --yes',
    ['inboundRemove', 'gold', true],
    { stream: 'gold', removed: true },
    /Stream gold is forgotten here.*stream remove gold.*stream initialize gold/,
  ],
  [
    'inbound show gold',
    ['inboundShow', 'gold'],
    inboundView('gold'),
    /^db {6}1\.0 GiB {2}\/var\/lib\/tidemark\/inbound\/gold\/db\.img$/m,
  ],
]

t.test('every command reaches its operation, prints for people, and with --json exactly one document', async (t) => {
  await checkCommands(t, table)
})

t.test('global options are taken before, within and after the command', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  for (const words of [
    ['--agent', socketPath, '--json', 'volume', 'show', 'db'],
    ['volume', '--agent', socketPath, 'show', '--json', 'db'],
    ['volume', 'show', 'db', '--json', '--agent', socketPath],
    ['volume', 'show', 'db', '--json', `--agent=${socketPath}`],
  ]) {
    const outcome = await runCli(words, { socketPath: '/nowhere/agent.sock' })
    t.match(outcome, { code: 0, json: { name: 'db' } }, words.join(' '))
  }
  t.equal(operations.calls.length, 4)
})

t.test('paths are meant from where the command is typed', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  const directory = privateFolder(t)
  await runCli(['volume', 'adopt', 'a', '--path', 'x.img'], { socketPath, directory })
  t.same(operations.calls.at(-1), ['volumeAdopt', { name: 'a', path: path.join(directory, 'x.img') }])
  await runCli(['pairing', 'create', '--folder', '.'], { socketPath, directory })
  t.same(operations.calls.at(-1), ['pairingCreate', { kind: 'folder', directory }])
})

t.test('a pairing string comes from stdin or a private file, so that it stands on no command line', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  const file = path.join(privateFolder(t), 'pairing')
  writeFileSync(file, 'from-file\n', { mode: 0o600 })
  t.equal(
    (await runCli(['destination', 'add', 'd', '--pairing', '-'], { socketPath, stdin: 'from-stdin\r\n' })).code,
    0,
  )
  t.same(operations.calls.at(-1), ['destinationAdd', { name: 'd', pairing: 'from-stdin' }])
  t.equal((await runCli(['destination', 'add', 'd', '--pairing', `@${file}`], { socketPath })).code, 0)
  t.same(operations.calls.at(-1), ['destinationAdd', { name: 'd', pairing: 'from-file' }])
  chmodSync(file, 0o644)
  const open = await runCli(['destination', 'add', 'd', '--pairing', `@${file}`], { socketPath })
  t.match(open, { code: 1, stderr: /^tidemark: .*other users may read it.*chmod 600.*\n$/ })
  const empty = await runCli(['destination', 'add', 'd', '--pairing', '-'], { socketPath })
  t.match(empty, { code: 1, stderr: /empty/ })
  const missing = await runCli(['destination', 'add', 'd', '--pairing', '@/nowhere', '--json'], { socketPath })
  t.match(JSON.parse(missing.stderr), { error: { code: 'SECRET_NOT_READ', object: '/nowhere' } })
  t.equal(operations.calls.length, 2)
})

t.test('the FTP password comes from a file or stdin and survives any character', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  const words = ['pairing', 'create', '--ftp', 'ftp://user@h:2121/d', '--inbox', '/in', '--password-file', '-']
  const password = 'p@ss/w%41rd #?:ü"'
  t.equal((await runCli(words, { socketPath, stdin: `${password}\n` })).code, 0)
  const [, request] = operations.calls.at(-1) as [string, { url: string }]
  t.equal(decodeURIComponent(new URL(request.url).password), password)
  t.match(request.url, /^ftp:\/\/user:.*@h:2121\/d$/)
})

t.test('events are printed to the end over several pages, and as JSON lines', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  operations.pastEvents = Array.from({ length: 2100 }, (_, index) => event(index + 1))
  const all = await runCli(['events'], { socketPath })
  t.equal(all.stdout.trimEnd().split('\n').length, 2100)
  t.match(all.stdout, /^1 {2}2026-01-02T03:04:05\.000Z {2}info {5}LINK_UP {2}backup {2}the link is up\n/)
  const some = await runCli(['events', '--json', '--after', '2098'], { socketPath })
  t.same(
    some.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line)),
    [event(2099), event(2100)],
  )
})

t.test('followed events appear as they happen, until Ctrl-C or the reader leaves', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  operations.pastEvents = [event(1)]
  let sent = false
  const outcome = await runCli(['events', '--follow', '--json'], {
    socketPath,
    onOutput: (child, stdout) => {
      const count = stdout.split('\n').length - 1
      if (count === 1 && !sent) {
        sent = true
        operations.emit(event(2))
      }
      if (count === 2) child.kill('SIGINT')
    },
  })
  t.same(
    outcome.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line)),
    [event(1), event(2)],
  )
  operations.pastEvents = Array.from({ length: 5000 }, (_, index) => event(index + 1))
  const left = await runCli(['events'], { socketPath, onOutput: (child) => child.stdout.destroy() })
  t.match(left, { code: 0, stderr: '' }, 'a reader that leaves early is no failure')
})

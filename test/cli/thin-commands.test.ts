import path from 'node:path'
import t from 'tap'
import { privateFolder, startFakeApi } from '../api/fake-api.js'
import { poolView, snapshotView, thinView } from '../api/fake-operations.js'
import { type CommandRow, checkCommands } from './command-table.js'
import { fakeProgram, runCli } from './run-cli.js'

t.setTimeout(400_000)

const table: readonly CommandRow[] = [
  [
    'volume create db --pool fast --size 300GiB',
    ['volumeCreateThin', { name: 'db', pool: 'fast', sizeBytes: 300 * 1024 ** 3 }],
    { name: 'db', kind: 'thin', pool: 'fast', path: null },
    /thin in the pool fast, 300 GiB, empty/,
  ],
  [
    'volume attach db@monday --read-only',
    ['snapshotAttach', 'db', 'monday', true],
    { volume: 'db', name: 'monday', link: '/dev/tidemark/db@monday' },
    /Snapshot db@monday is attached read-only, as it was taken, as \/dev\/loop8/,
  ],
  [
    'volume attach db@monday',
    ['snapshotAttach', 'db', 'monday', false],
    { volume: 'db', name: 'monday', readOnly: false },
    /Snapshot db@monday is attached as \/dev\/loop8.*snapshot discard db monday/,
  ],
  [
    'snapshot discard db monday --yes',
    ['snapshotDiscard', 'db', 'monday', true],
    snapshotView('db', 'monday'),
    /db@monday is as it was taken/,
  ],
  ['snapshot discard db monday', ['snapshotDiscard', 'db', 'monday', false], snapshotView('db', 'monday'), /./],
  [
    'volume detach db@monday',
    ['snapshotDetach', 'db', 'monday'],
    snapshotView('db', 'monday'),
    /db@monday is detached/,
  ],
  [
    'volume resize db --size 2TiB',
    ['volumeResize', 'db', 2 * 1024 ** 4, false],
    { sizeBytes: 2 * 1024 ** 4 },
    /has 2\.0 TiB/,
  ],
  ['volume resize db --size 1GiB --force', ['volumeResize', 'db', 1024 ** 3, true], { sizeBytes: 1024 ** 3 }, /./],
  [
    'volume diff db@monday db@tuesday',
    ['volumeDiff', 'db', 'monday', 'tuesday', 0],
    { from: 'monday', to: 'tuesday', changedBytes: 131072, extents: [{ offset: 65536, lengthBytes: 131072 }] },
    /^65536 131072\n128 KiB in 1 extents/,
  ],
  ['volume diff db@monday db', ['volumeDiff', 'db', 'monday', null, 0], { to: null }, /./],
  [
    'snapshot create db monday',
    ['snapshotCreate', 'db', 'monday'],
    snapshotView('db', 'monday'),
    /Snapshot db@monday is made.*attach db@monday, or with --read-only/,
  ],
  [
    'snapshot list db',
    ['snapshotList', 'db'],
    [snapshotView('db', 'monday')],
    /^monday {2}2026-01-02T03:04:05\.000Z {2}1\.0 GiB {2}8\.0 MiB {4}- {7,8}detached {2}-$/m,
  ],
  [
    'snapshot remove db monday',
    ['snapshotRemove', 'db', 'monday'],
    { volume: 'db', name: 'monday', removed: true },
    /./,
  ],
  ['snapshot rollback db monday', ['snapshotRollback', 'db', 'monday', false], { name: 'db' }, /as it was at monday/],
  ['snapshot rollback db monday --yes', ['snapshotRollback', 'db', 'monday', true], { name: 'db' }, /./],
  [
    'clone create db@monday test',
    ['cloneCreate', { volume: 'db', snapshot: 'monday', name: 'test' }],
    { name: 'test', origin: 'db@monday' },
    /test is a clone of db@monday/,
  ],
  ['clone create db test', ['cloneCreate', { volume: 'db', name: 'test' }], { origin: 'db@for-test' }, /./],
  [
    'clone create db copy --full',
    ['cloneCreate', { volume: 'db', name: 'copy', full: true }],
    { image: { volume: 'db', complete: true } },
    /complete image of db/,
  ],
  ['clone refresh copy', ['cloneRefresh', 'copy', null], { name: 'copy' }, /complete image of db/],
  ['clone refresh copy --from monday', ['cloneRefresh', 'copy', 'monday'], { name: 'copy' }, /./],
  [
    'pool create fast --file /a --size 1GiB --file /b --size 2GiB --device /dev/sdb --unit 4MiB --block 16KiB --force',
    [
      'poolCreate',
      {
        name: 'fast',
        devices: [
          { path: '/a', kind: 'file', sizeBytes: 1024 ** 3 },
          { path: '/b', kind: 'file', sizeBytes: 2 * 1024 ** 3 },
          { path: '/dev/sdb', kind: 'raw' },
        ],
        unitBytes: 4 * 1024 ** 2,
        blockBytes: 16384,
        force: true,
      },
    ],
    poolView('fast'),
    /Pool fast has 4\.0 GiB for volumes/,
  ],
  [
    'pool create fast --file /a --file /b --size 1GiB',
    [
      'poolCreate',
      {
        name: 'fast',
        devices: [
          { path: '/a', kind: 'file', sizeBytes: 1024 ** 3 },
          { path: '/b', kind: 'file', sizeBytes: 1024 ** 3 },
        ],
      },
    ],
    { name: 'fast' },
    /./,
  ],
  [
    'pool list',
    ['poolList'],
    [poolView('fast')],
    /^fast {2}4\.0 GiB {2}1\.0 GiB {4}25 % {2}16\.0 GiB {2}2 {8}online {2}75 % of its space is free$/m,
  ],
  [
    'pool show fast',
    ['poolShow', 'fast'],
    { sizeBytes: 4 * 1024 ** 3, allocatedBytes: 1024 ** 3, virtualBytes: 16 * 1024 ** 3, marks: [70, 85, 95] },
    /^Space: +1\.0 GiB of 4\.0 GiB allocated \(25 %\)$/m,
  ],
  [
    'pool extend fast --file /c --size 1GiB',
    ['poolExtend', 'fast', { path: '/c', kind: 'file', sizeBytes: 1024 ** 3 }],
    { name: 'fast' },
    /on 1 devices/,
  ],
  [
    'pool extend fast --device /dev/sdc',
    ['poolExtend', 'fast', { path: '/dev/sdc', kind: 'raw' }],
    { name: 'fast' },
    /./,
  ],
  ['pool export fast', ['poolExport', 'fast'], { paths: ['/srv/a', '/dev/sdb'] }, /pool import \/srv\/a \/dev\/sdb/],
  ['pool import /srv/a /dev/sdb', ['poolImport', ['/srv/a', '/dev/sdb']], { name: 'fast' }, /volumes db, test/],
  ['pool remove fast', ['poolRemove', 'fast', false], { name: 'fast', removed: true }, /destroyed/],
  ['pool remove fast --yes', ['poolRemove', 'fast', true], { name: 'fast', removed: true }, /destroyed/],
  [
    'pool check fast',
    ['poolCheck', 'fast', false],
    { clean: true, findings: [] },
    /2 volumes, 3 snapshots.*Nothing is/,
  ],
  ['pool check fast --repair', ['poolCheck', 'fast', true], { clean: true }, /./],
]

t.test('every command of pools, snapshots and clones reaches its operation', async (t) => {
  await checkCommands(t, table)
})

t.test('what a thin volume is and takes is in its facts', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  operations.volumes = [{ ...thinView('db'), origin: 'gold@monday' }]
  const { stdout } = await runCli(['volume', 'show', 'db'], { socketPath })
  t.match(stdout, /^Pool: +fast, 8\.0 MiB allocated to it and its snapshots$/m)
  t.match(stdout, /^Snapshots: +2$/m)
  t.match(stdout, /^Clone of: +gold@monday$/m)
  t.notMatch(stdout, /^Path:/m)
})

t.test('a pool is checked by its devices without an agent, and what is damaged is exit 1', async (t) => {
  const directory = privateFolder(t)
  const run = (...words: string[]) => runCli(['pool', 'check', ...words], { program: fakeProgram, directory })
  const clean = await run('/dev/sdb', './x', '--json')
  t.match(clean, { code: 0, stderr: '', json: { clean: true, devices: ['/dev/sdb', path.join(directory, 'x')] } })
  const damaged = await run('/srv/damaged')
  t.equal(damaged.code, 1)
  t.match(damaged.stdout, /^error: unit 7: its page is damaged\\x1b\[31m \(what db showed there\)\n/)
  t.match(damaged.stderr, /^tidemark: .*1 findings.*--repair\.\n$/)
  const json = await run('/srv/damaged', '--json')
  t.match(json, { code: 1, json: { clean: false, findings: [{ object: 'unit 7', repaired: false }] } })
  t.match(JSON.parse(json.stderr), { error: { code: 'POOL_DAMAGED' } })
  t.match(await run('/srv/damaged', '--repair'), { code: 0, stdout: /\(repaired\)\n.*All of it is repaired/ })
})

t.test('a check that takes long says how far it is', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  operations.checkProgress = { donePages: 3, totalPages: 8 }
  let end = (): void => {}
  operations.checking = new Promise((resolve) => {
    end = resolve
  })
  const running = runCli(['pool', 'check', 'fast'], { socketPath })
  while (!operations.calls.some(([call]) => call === 'poolShow'))
    await new Promise((resolve) => setTimeout(resolve, 20))
  setTimeout(end, 200)
  const { code, stderr } = await running
  t.equal(code, 0)
  t.match(stderr, /^fast: reading the metadata, 37(\.5)? %, \d+ s$/m)
})

t.test('extents are asked for page by page, and printed as one document', async (t) => {
  const { operations, socketPath } = await startFakeApi(t)
  const extents = [0, 1, 2].map((number) => ({ offset: number * 131072, lengthBytes: 65536 }))
  operations.diffPages = [
    { extents: extents.slice(0, 2), next: 262144 },
    { extents: extents.slice(2), next: null },
  ]
  const { json } = await runCli(['volume', 'diff', 'db@a', 'db@b', '--json'], { socketPath })
  t.same(json, { volume: 'db', from: 'a', to: 'b', changedBytes: 131072, extents })
  t.same(
    operations.calls.map((call) => call.at(-1)),
    [0, 262144],
  )
})

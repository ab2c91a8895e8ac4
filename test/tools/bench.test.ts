import { spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { fioParameters, parseFio } from '../../tools/bench/fio.js'
import { interleave } from '../../tools/bench/interleave.js'
import { lags } from '../../tools/bench/lag.js'
import { uniqueBlocks } from '../../tools/bench/measures/fold.js'
import { measures } from '../../tools/bench/measures.js'
import { chosen, parseOptions } from '../../tools/bench/options.js'
import { plot } from '../../tools/bench/plot.js'
import { number, report } from '../../tools/bench/report.js'
import type { Results, Sample } from '../../tools/bench/results.js'
import { requireRoom } from '../../tools/bench/room.js'
import { rows } from '../../tools/bench/rows.js'
import { median, pairedRatios, quantile, spread, summarize } from '../../tools/bench/statistics.js'
import { judge, targets } from '../../tools/bench/targets.js'
import { workloads } from '../../tools/bench/workloads.js'
import { loopDevices } from '../fixtures/leftovers.js'
import { repositoryRoot, scratchFolder } from '../fixtures/paths.js'

t.test('medians and quantiles are interpolated, and of nothing there is none', async (t) => {
  t.equal(median([5, 1, 3]), 3)
  t.equal(median([4, 1, 3, 2]), 2.5)
  t.equal(quantile([0, 10], 0.99), 9.9)
  t.equal(quantile([7], 0.01), 7)
  t.same(summarize([2, 9, 4]), { count: 3, median: 4, least: 2, greatest: 9 })
  t.equal(summarize([]), undefined)
  t.equal(spread({ count: 3, median: 4, least: 2, greatest: 9 }), 1.25)
})

t.test('a ratio is that of the same round, so a slow round does not count against one row', async (t) => {
  const fast = new Map([
    [0, 200],
    [1, 20],
    [2, 210],
  ])
  const slow = new Map([
    [0, 100],
    [1, 10],
    [3, 100],
    [2, 0],
  ])
  t.same(pairedRatios(fast, slow), [2, 2])
})

t.test('rows take turns in every round, each round begins with another, and who cannot is left out', async (t) => {
  const turns = [...interleave(['a', 'b', 'c'], ['w', 'x'], 3, (row, workload) => row !== 'c' || workload === 'w')]
  const order = (workload: string) =>
    turns.filter((turn) => turn.workload === workload).map(({ row, round }) => `${row}${round}`)
  t.same(order('w'), ['a0', 'b0', 'c0', 'b1', 'c1', 'a1', 'c2', 'a2', 'b2'])
  t.same(order('x'), ['a0', 'b0', 'b1', 'a1', 'a2', 'b2'])
})

const direction = (iops: number, p99: number) => ({
  iops,
  bw_bytes: iops * 4096,
  total_ios: iops * 2,
  io_bytes: iops * 8192,
  clat_ns: { percentile: { '50.000000': p99 / 2, '99.000000': p99 } },
})
const nothing = { iops: 0, bw_bytes: 0, total_ios: 0, io_bytes: 0, clat_ns: {} }
const answer = (job: object) => `fio: a remark\n${JSON.stringify({ jobs: [{ error: 0, ...job }] }, null, 2)}\nmore\n`

t.test('what fio printed is read, remarks around it or not', async (t) => {
  const found = parseFio(answer({ read: direction(1000, 9000), write: direction(500, 4000) }), 0)
  t.same(found, { iops: 1500, mibPerSecond: (1500 * 4096) / 2 ** 20, p50Us: 2, p99Us: 4, ios: 3000, bytes: 12288000 })
  t.equal(parseFio(answer({ read: direction(1000, 9000), write: nothing }), 0).p99Us, 9)
})

t.test('a run that failed is no figure', async (t) => {
  const good = { read: nothing, write: direction(10, 10) }
  t.throws(() => parseFio(answer({ ...good, error: 5 }), 0), /ended with 0/)
  t.throws(() => parseFio(answer(good), 1), /ended with 1/)
  t.throws(() => parseFio(answer(good), null), /a signal/)
  t.throws(() => parseFio(answer({ read: nothing, write: nothing }), 0), /did nothing/)
  t.throws(() => parseFio('fio: no such device\n', 0), /no such device/)
})

t.test('a device is written past the page cache, an NBD server by fio itself', async (t) => {
  const device = fioParameters({ device: '/dev/loop9' }, { bs: '4k' })
  t.match(device, ['--output-format=json', '--eta=never', '--name=bench'])
  for (const word of ['--direct=1', '--filename=/dev/loop9', '--bs=4k']) t.ok(device.includes(word), word)
  const server = fioParameters({ nbdSocket: '/tmp/a.sock' }, {})
  t.ok(server.includes('--uri=nbd+unix:///?socket=/tmp/a.sock'))
  t.notOk(server.some((word) => word.startsWith('--filename')))
})

t.test('the lag is the age of the oldest write the destination does not have, never too short', async (t) => {
  const look = (atMs: number, journaled: number, applied: number) => ({
    atMs,
    journaled: BigInt(journaled),
    applied: BigInt(applied),
  })
  // 100 bytes a look; the destination is two looks behind, then has everything.
  t.same(
    lags([look(0, 100, 100), look(10, 200, 100), look(20, 300, 100), look(30, 400, 250), look(40, 400, 400)]),
    [0, 10, 20, 20, 0],
  )
  t.same(lags([look(0, 100, 0), look(10, 200, 0)]), [0, 10])
  t.same(lags([]), [])
})

t.test("the unique blocks of fio's log of requests are counted", async (t) => {
  const log = 'fio version 3 iolog\n1 /dev/loop1 open\n5 /dev/loop1 write 4096 4096\n6 /dev/loop1 write 0 4096\n'
  t.equal(uniqueBlocks(`${log}7 /dev/loop1 write 4096 4096\n8 /dev/loop1 close\n`), 2)
})

t.test('options have bounds, and a wrong name is told what there is', async (t) => {
  t.match(parseOptions([]), { quick: false, rounds: 5, modes: ['page-cache', 'direct'], volumeBytes: 2 ** 30 })
  const quick = parseOptions(['--quick'])
  t.match(quick, { quick: true, rounds: 3, modes: ['page-cache'] })
  t.ok(quick.limitMs < 180_000)
  t.same(parseOptions(['--only', 'loop,floor', '--workloads', 'none']).workloads, [])
  t.throws(() => parseOptions(['--rounds', '0']), /1 to 100/)
  t.throws(() => parseOptions(['--modes', 'fast']), /page-cache, direct/)
  t.throws(() => parseOptions(['--quik']))
  t.throws(() => chosen('--only', rows, ['loup']), /there is no loup; use loop, /)
  t.same(
    chosen('--only', rows, ['floor', 'loop']).map(({ id }) => id),
    ['loop', 'floor'],
  )
})

t.test('a disk with too little room is refused before anything is written', async (t) => {
  await t.rejects(requireRoom(scratchFolder(t, 'room'), 2 ** 60), /GiB free/)
})

t.test('ids are unique, and every target names what there is', async (t) => {
  const ids = [rows, workloads, measures.flatMap(({ figures }) => figures)].map((all) => all.map(({ id }) => id))
  for (const all of ids) t.equal(new Set(all).size, all.length)
  t.ok(rows.filter(({ quick }) => quick).length >= 7)
})

/** `of` says the IOPS (or MiB/s) of a row in a round, or nothing. */
function results(of: (row: string, workload: string, round: number) => number | undefined): Results {
  const samples: Sample[] = []
  for (const { id: workload } of workloads) {
    for (const { id: row } of rows) {
      for (let round = 0; round < 5; round++) {
        const value = of(row, workload, round)
        if (value === undefined) continue
        const place = { mode: 'page-cache', workload, row, round } as const
        samples.push({ ...place, iops: value, mibPerSecond: value, p50Us: 1, p99Us: 2 })
      }
    }
  }
  const machine = {
    cpu: 'A <processor> & more',
    cores: 2,
    memoryGiB: 8,
    kernel: '6.1',
    system: 'Debian',
    node: 'v20',
    fileSystem: 'ext4',
    tools: { fio: 'fio-3' },
    loadBefore: 0,
  }
  return {
    version: 1,
    machine,
    startedAt: '2026-01-02T03:04:05.000Z',
    seconds: 1,
    commit: 'abc',
    dirty: false,
    command: 'npm run bench',
    quick: false,
    volumeBytes: 2 ** 30,
    runMs: 2000,
    rounds: 5,
    samples,
    absences: [{ mode: 'page-cache', row: 'thin', reason: 'not available: no pools' }],
    figures: [
      { id: 'initialize-rate', title: 'initialize into a local folder', unit: 'MiB/s', samples: [390, 410, 405] },
    ],
    missing: [{ id: 'recovery-1024', title: 'recovery', reason: 'checkpoints came in between' }],
  }
}

const verdict = (found: Results, title: RegExp) => judge(found).filter((line) => title.test(line.title))

t.test('a target is reached at its bound, missed below it, and told why when it was not measured', async (t) => {
  const rates: Record<string, number> = {
    floor: 100,
    thin: 85,
    'thin-stream': 59,
    'qemu-qcow2': 42,
    'nbdkit-file': 30,
    loop: 42.5,
  }
  const found = results((row, workload) => (workload === 'write-4k-d32' ? rates[row] : undefined))
  t.match(verdict(found, /random write, depth 32/), [
    {
      target: '>= 2x the best of qemu-qcow2, nbdkit-file, loop',
      figure: '2.00 (2.00 to 2.00)x loop',
      verdict: 'reached',
    },
    { target: '>= 0.85x floor', verdict: 'reached' },
    { target: '>= 1.5x qemu-qcow2', figure: '1.40 (1.40 to 1.40)x', verdict: 'missed' },
    { target: '>= 0.6x floor', verdict: 'missed' },
  ])
  t.match(verdict(found, /^initialize into/), [{ figure: '405 (390 to 410) MiB/s', verdict: 'reached' }])
  t.match(verdict(found, /^recovery/), [{ figure: 'checkpoints came in between', verdict: 'not measured' }])
  t.match(verdict(found, /1 MiB sequential/), [
    { figure: 'thin: not available: no pools', verdict: 'not measured' },
    { figure: 'thin-stream: not asked for in this run', verdict: 'not measured' },
  ])
})

t.test('a machine that is slow for a round changes no verdict', async (t) => {
  const found = results((row, workload, round) => {
    if (workload !== 'read-4k-d8' || !['thin', 'floor'].includes(row)) return undefined
    return (row === 'thin' ? 95 : 100) / (round === 2 ? 10 : 1)
  })
  t.match(verdict(found, /depth 8: thin$/), [{ figure: '0.95 (0.95 to 0.95)x', verdict: 'reached' }])
})

t.test('the report has the machine, a cell for each row and a verdict for every target', async (t) => {
  const text = report(results((row, workload) => (row === 'loop' && workload === 'read-4k-d1' ? 1234 : undefined)))
  t.match(text, 'A <processor> & more, 2 cores')
  t.match(text, /4 KiB random read, depth 1, iops +1\.2k ±0 %/)
  t.match(text, /initialize into a local folder +405 MiB\/s +390 to 410, n 3/)
  t.match(text, 'thin (page-cache): not available: no pools')
  t.equal([...text.matchAll(/(reached|missed|not measured)$/gm)].length, targets.length)
})

t.test('the plot is well formed: a bar for each row that was measured, and no markup from outside', async (t) => {
  const svg = plot(results((row, workload) => (workload === 'mix-4k-d32' && row !== 'thin' ? 500 : undefined)))
  const opened = [...svg.matchAll(/<(svg|text)\b/g)].length
  t.equal([...svg.matchAll(/<\/(svg|text)>/g)].length, opened)
  t.equal([...svg.matchAll(/<rect x=/g)].length, rows.length - 1)
  t.notMatch(svg, /NaN|Infinity|<processor>/)
  t.match(svg, 'A &#60;processor&#62; &#38; more')
})

t.test('numbers keep three digits', async (t) => {
  t.same([0.1234, 1.234, 12.34, 123.4, 1234, 123_456].map(number), ['0.123', '1.23', '12.3', '123', '1.2k', '123k'])
})

interface Ended {
  readonly code: number | null
  readonly output: string
}

function bench(folder: string, words: readonly string[]): { ended: Promise<Ended>; interrupt: () => void } {
  const program = join(repositoryRoot, 'dist/tools/bench/main.js')
  const child = spawn(process.execPath, [program, '--directory', folder, ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString()
    })
  }
  const ended = new Promise<Ended>((resolve) => child.on('close', (code) => resolve({ code, output })))
  return { ended, interrupt: () => child.kill('SIGTERM') }
}

const heldBelow = (folder: string) => [
  ...readdirSync(folder),
  ...loopDevices().filter(({ backing }) => backing.startsWith(folder)),
  ...readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .filter((line) => line.includes(folder)),
]

const small = ['--only', 'loop,linear', '--workloads', 'write-4k-d1', '--measures', 'none', '--modes', 'page-cache']

t.test('a run on real devices writes JSON, table and plot, and leaves nothing else behind', async (t) => {
  const folder = scratchFolder(t, 'b')
  const output = scratchFolder(t, 'bench-results')
  const size = ['--size', '16MiB', '--rounds', '2', '--runtime', '100ms', '--quick', '--output', output]
  const { code, output: printed } = await bench(folder, [...small, ...size]).ended
  t.equal(code, 0, printed)
  t.match(printed, /4 KiB random write, depth 1, iops +\S+ ±\d+ % +\S+ ±\d+ %/)
  const files = readdirSync(output)
  t.same(files.map((name) => name.split('.').at(-1)).sort(), ['json', 'svg', 'txt'])
  const found = JSON.parse(readFileSync(join(output, files.find((name) => name.endsWith('.json'))!), 'utf8')) as Results
  t.equal(found.samples.length, 4)
  t.ok(found.samples.every(({ iops, p99Us }) => iops > 0 && p99Us > 0))
  t.same(heldBelow(folder), [])
})

t.test('an interrupted run leaves nothing behind', async (t) => {
  const folder = scratchFolder(t, 'b')
  const run = bench(folder, [...small, '--size', '16MiB', '--rounds', '100', '--output', join(folder, 'never')])
  const begun = () => loopDevices().filter(({ backing }) => backing.startsWith(folder)).length === 2
  for (let i = 0; i < 600 && !begun(); i++) await new Promise((resolve) => setTimeout(resolve, 100))
  t.ok(begun())
  run.interrupt()
  t.not((await run.ended).code, 0)
  t.same(heldBelow(folder), [])
})

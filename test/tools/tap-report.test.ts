import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { repositoryRoot, scratchFolder } from '../fixtures/paths.js'

const counts = join(scratchFolder(t, 'report'), 'counts')

function report(lines: readonly string[]): { printed: string; counted: string; code: number | null } {
  const program = join(repositoryRoot, 'tools/tap-report.mjs')
  const run = spawnSync(process.execPath, [program, counts], { encoding: 'utf8', input: `${lines.join('\n')}\n` })
  return { printed: run.stdout, counted: readFileSync(counts, 'utf8').trim(), code: run.status }
}

const end = ['1..1', '# { total: 1, pass: 1 }']

t.test('facts are counted, assertions inside of them are not', async (t) => {
  const { counted, printed, code } = report([
    '    # Subtest: a fact',
    '        ok 1 - should be equal',
    '        ok 2 - should be equal',
    '    ok 1 - a fact # time=3ms',
    '    ok 2 - another # time=1ms',
    'ok 1 - dist/test/x/y.test.js # time=1500ms',
    ...end,
  ])
  t.equal(counted, '2 0')
  t.equal(code, 0)
  t.match(printed, /^ok {6}test\/x\/y\.test {2}\(2 passed, 1\.5 s\)$/m)
})

t.test('a failed fact is named with what it said, and the others are not shown', async (t) => {
  const { counted, printed, code } = report([
    '        ok 1 - quiet',
    '    ok 1 - good # time=1ms',
    '        not ok 1 - loud',
    '          ---',
    '    not ok 7 - in a diagnostic nothing counts',
    '          ...',
    '    not ok 2 - bad # time=1ms',
    'not ok 1 - dist/test/x.test.js # time=5ms',
    ...end,
  ])
  t.equal(counted, '1 1')
  t.equal(code, 1)
  t.match(printed, /not ok: bad/)
  t.match(printed, /loud/)
  t.notMatch(printed, /quiet/)
})

t.test('a skipped test is a failed one', async (t) => {
  const { counted, printed } = report([
    '    ok 1 - later # SKIP no root',
    'ok 1 - dist/test/x.test.js # time=5ms',
    ...end,
  ])
  t.equal(counted, '0 1')
  t.match(printed, /skipped: later/)
  t.equal(report(['    ok 1 - later # TODO', 'ok 1 - dist/test/x.test.js # time=5ms', ...end]).counted, '0 1')
})

t.test('what is skipped inside of a test makes that test a failed one, however deep it lies', async (t) => {
  const end4 = [
    '    ok 1 - a fact # time=3ms',
    '    ok 2 - another # time=1ms',
    'ok 1 - dist/test/x.test.js # time=5ms',
  ]
  for (const depth of [8, 12, 16]) {
    for (const directive of ['SKIP no root', 'SKIP', 'TODO', 'skip later']) {
      const { counted, printed, code } = report([
        `${' '.repeat(depth)}ok 1 - later # ${directive}`,
        ...(depth > 8 ? ['        ok 1 - outer # time=1ms'] : []),
        ...end4,
        ...end,
      ])
      t.equal(counted, '1 1', `${directive} at ${depth}`)
      t.equal(code, 1)
      t.match(printed, /skipped: later, in: a fact/)
    }
  }
  const late = ['    ok 1 - a fact {', '        ok 1 - later # SKIP', '    }', 'ok 1 - dist/test/x.test.js # time=5ms']
  t.equal(report([...late, ...end]).counted, '1 1', 'also when it is told after its fact')
  const quoted = ['        ok 1 - good', '          ---', '          ok 1 - quoted # SKIP', '          ...', ...end4]
  t.equal(report([...quoted, ...end]).counted, '2 0', 'in a diagnostic nothing counts')
})

t.test('a file that dies is one failure', async (t) => {
  t.equal(report(['    ok 1 - good # time=1ms', 'not ok 1 - dist/test/x.test.js # time=5ms', ...end]).counted, '1 1')
  const late = ['not ok 1 - timeout!', '  ---', '  expired: dist/test/slow.test.js', '  ...', ...end]
  t.equal(report(late).counted, '0 1')
  t.match(report(late).printed, /out of time: dist\/test\/slow\.test\.js/)
})

t.test('tap that ends before its summary is a failure', async (t) => {
  t.equal(report(['    ok 1 - good # time=1ms', 'ok 1 - dist/test/x.test.js # time=5ms']).counted, '1 1')
  t.equal(report([]).counted, '0 1')
})

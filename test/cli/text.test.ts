import t from 'tap'
import { Terminal } from '../../src/cli/terminal.js'
import { age, bytes, percent, safeJson, table, visible } from '../../src/cli/text.js'

t.test('sizes and ages are short and right at every border', async (t) => {
  t.same([0, 1, 1023, 1024, 1536, 1024 ** 2 - 1, 150 * 1024, 1024 ** 3, 1.5 * 1024 ** 4, 1024 ** 6].map(bytes), [
    '0 B',
    '1 B',
    '1023 B',
    '1.0 KiB',
    '1.5 KiB',
    '1024 KiB',
    '150 KiB',
    '1.0 GiB',
    '1.5 TiB',
    '1024 PiB',
  ])
  t.same([0, -1, 0.44, 9.96, 59.4, 59.6, 60, 75, 3599.9, 3600, 7810, 86_400, 90_000].map(age), [
    '0 s',
    '0 s',
    '0.4 s',
    '10.0 s',
    '59 s',
    '1 min',
    '1 min',
    '1 min 15 s',
    '1 h',
    '1 h',
    '2 h 10 min',
    '1 d',
    '1 d 1 h',
  ])
  t.same([percent(1, 3), percent(0, 0), percent(5, 3)], ['33 %', '100 %', '100 %'])
})

t.test('every control and invisible character becomes its code, and nothing else changes', async (t) => {
  t.equal(visible('plain ü 日本 😀 <&>'), 'plain ü 日本 😀 <&>')
  for (let code = 0; code < 0xa0; code += 1) {
    const shown = visible(String.fromCharCode(code))
    t.match(shown, /^[\x20-\x7e]+$/)
  }
  t.equal(visible('\u202e\ufeff\u{e0041}\ud800'), '\\u{202e}\\u{feff}\\u{e0041}\\u{d800}')
})

t.test('safe JSON has the same value', async (t) => {
  const value = { a: 'x\u007f\u009b\u202e\u{e0041}\n\u001b', b: [1, { '\u0085': null }] }
  for (const indent of [undefined, 2]) {
    const json = safeJson(value, indent)
    t.same(JSON.parse(json), value)
    t.match(json, /^[\x20-\x7e\n]+$/)
  }
})

t.test('columns line up by what is shown, with nothing at the line end', async (t) => {
  t.same(
    table([
      ['A', 'B', 'C'],
      ['x\n', 'yyyy', ''],
      ['', 'z', 'w'],
    ]),
    ['A      B     C', 'x\\x0a  yyyy', '       z     w'],
  )
})

t.test('progress is redrawn over itself on a terminal, without escape sequences', async (t) => {
  let drawn = ''
  const draw = (text: string) => {
    drawn += text
  }
  const stream = (isTTY: boolean) => ({ isTTY, columns: 30, write: draw })
  const make = (isTTY: boolean) =>
    new Terminal({ stdin: process.stdin, stdout: stream(isTTY) as never, stderr: stream(isTTY) as never }, false)
  const terminal = make(true)
  terminal.progress('a long line \u001b[31m that does not fit')
  terminal.progress('short')
  terminal.result({}, ['done'])
  const width = 29
  t.equal(drawn, `\ra long line \\x1b[31m that doe${`\rshort`.padEnd(width + 1)}\r     \rdone\n`)
  drawn = ''
  const plain = make(false)
  plain.progress('one')
  plain.progress('two, too soon')
  plain.clearProgress()
  t.equal(drawn, 'one\n')
})

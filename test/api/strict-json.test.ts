import t from 'tap'
import { JSON_DEPTH_LIMIT, JsonRefusal, parseStrictJson } from '../../src/api/strict-json.js'

t.test('ordinary JSON is what JSON.parse says', async (t) => {
  for (const text of [
    '{"a":[1,-2.5e3,true,null,"\\"}{[,:"],"b":{"a":"x"}}',
    '[]',
    '"text"',
    ' {"a" : "1,2" , "c":[{"a":1},{"a":2}]} ',
    '{"n":9007199254740991,"m":-9007199254740991}',
    '{"\\u0061":"\\\\"}',
    '{"n":"1e309"}',
  ]) {
    t.same(parseStrictJson(text), JSON.parse(text), text)
  }
})

t.test('what is not JSON is refused without quoting it', async (t) => {
  for (const text of [
    '',
    '{',
    '{"secret":}',
    '{secret:1}',
    '{"a":1,}',
    '[1,,2]',
    '{"a"',
    '{"a',
    '{,"a":1}',
    '"\\',
    '-',
    '1.2.3',
    ']',
  ]) {
    const refusal = refusalOf(text)
    t.ok(refusal instanceof JsonRefusal, text)
    t.notMatch(String(refusal), /secret/)
  }
})

t.test('keys that reach a prototype are refused, escaped ones too', async (t) => {
  for (const text of ['{"__proto__":{}}', '{"a":{"constructor":{}}}', '[{"prototype":1}]', '{"__proto\\u005f_":1}']) {
    t.throws(() => parseStrictJson(text), /forbidden key/, text)
  }
  t.same(parseStrictJson('{"a":"__proto__"}'), { a: '__proto__' })
})

t.test('a key given twice is refused', async (t) => {
  t.throws(() => parseStrictJson('{"name":"a","name":"b"}'), /one key twice/)
  t.throws(() => parseStrictJson('{"name":"a","n\\u0061me":"b"}'), /one key twice/)
})

t.test('a number that a double does not hold exactly is refused', async (t) => {
  for (const number of ['9007199254740993', '1e309', '-1e400', '1e300', '18446744073709551615']) {
    t.throws(() => parseStrictJson(`{"n":${number}}`), /beyond 2\^53/, number)
  }
})

t.test('nesting has a limit and costs no stack', async (t) => {
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)
  t.ok(parseStrictJson(nested(JSON_DEPTH_LIMIT)))
  t.throws(() => parseStrictJson(nested(JSON_DEPTH_LIMIT + 1)), /nested/)
  t.throws(() => parseStrictJson(nested(100_000)), /nested/)
  t.throws(() => parseStrictJson('{"a":'.repeat(100_000)), /nested/)
})

function refusalOf(text: string): unknown {
  try {
    return parseStrictJson(text)
  } catch (error) {
    return error
  }
}

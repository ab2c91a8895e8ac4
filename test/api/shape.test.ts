import t from 'tap'
import * as schemas from '../../src/api/schemas.js'
import {
  boolean,
  either,
  integer,
  list,
  nothing,
  number,
  object,
  oneOf,
  optional,
  orNull,
  positiveInteger,
  string,
} from '../../src/api/shape.js'

t.test('what is wrong is said with its place, and the first of it only', async (t) => {
  const shape = object({
    name: string({ min: 1, max: 4 }),
    parts: optional(list(object({ size: either(positiveInteger, string({ max: 3 })) }), { min: 1, max: 2 })),
    kinds: optional(list(oneOf(['a', 'b']), { unique: true })),
    flag: optional(boolean),
    none: optional(orNull(integer)),
  })
  const wrong: [unknown, string][] = [
    [undefined, 'body must be object'],
    [null, 'body must be object'],
    [[], 'body must be object'],
    ['x', 'body must be object'],
    [{}, "body must have required property 'name'"],
    [Object.create({ name: 'x' }), "body must have required property 'name'"],
    [{ name: 'x', other: 1, flag: 1 }, 'body has the unknown field "other"'],
    [{ name: 'x', constructor: 1 }, 'body has the unknown field "constructor"'],
    [{ name: undefined }, 'body/name must be string'],
    [{ name: '' }, 'body/name must NOT have fewer than 1 characters'],
    [{ name: 'abcde' }, 'body/name must NOT have more than 4 characters'],
    [{ name: 'x', parts: {} }, 'body/parts must be array'],
    [{ name: 'x', parts: [] }, 'body/parts must NOT have fewer than 1 items'],
    [{ name: 'x', parts: [1, 2, 3] }, 'body/parts must NOT have more than 2 items'],
    [{ name: 'x', parts: [{ size: 1 }, {}] }, "body/parts/1 must have required property 'size'"],
    ...[0, -1, 1.5, 2 ** 53, Number.NaN, '1234', null, true].map((size): [unknown, string] => [
      { name: 'x', parts: [{ size }] },
      'body/parts/0/size must be a whole number from 1 to 2^53 - 1 or string',
    ]),
    [{ name: 'x', kinds: ['a', 'c'] }, 'body/kinds/1 must be one of a, b'],
    [{ name: 'x', kinds: ['a', 'a'] }, 'body/kinds must NOT have one item twice'],
    [{ name: 'x', flag: 'true' }, 'body/flag must be boolean'],
    [{ name: 'x', flag: null }, 'body/flag must be boolean'],
    [{ name: 'x', none: '1' }, 'body/none must be integer'],
  ]
  for (const [value, fault] of wrong) t.equal(shape.fault(value, 'body'), fault, JSON.stringify(value))
  const right = [
    { name: 'x' },
    { name: '😀😀😀😀', none: null },
    { name: 'x', parts: [{ size: 1 }, { size: '1k' }], kinds: ['b', 'a'], flag: false, none: -3 },
  ]
  for (const value of right) t.equal(shape.fault(value, 'body'), undefined, JSON.stringify(value))
  t.equal(object({ a: optional(nothing) }, { min: 1 }).fault({}, 'body'), 'body must NOT have fewer than 1 properties')
})

t.test('an answer has the fields of its shape and no others', async (t) => {
  const shape = object({
    name: string(),
    list: list(object({ part: number })),
    whole: integer,
    maybe: orNull(object({ x: integer })),
    left: optional(string()),
  })
  const inner = { part: 0.5, secret: 'y' }
  const given = { name: 'n', list: [inner], whole: 2.9, maybe: { x: 1, secret: 'z' }, left: undefined, secret: 'x' }
  const answer = shape.take(given, 'answer')
  t.strictSame(answer, { name: 'n', list: [{ part: 0.5 }], whole: 2, maybe: { x: 1 } })
  t.strictSame(shape.take({ ...given, maybe: null }, 'answer'), { ...(answer as object), maybe: null })
  for (const broken of [
    { ...given, name: 7 },
    { ...given, name: undefined },
    { ...given, list: 'x' },
    { ...given, list: [{ part: Number.NaN }] },
    { ...given, whole: '1' },
    { ...given, maybe: undefined },
    'text',
  ]) {
    t.throws(() => shape.take(broken, 'answer'), /is not what it should be: answer/, JSON.stringify(broken))
  }
})

t.test('text that would reach a protocol or a terminal has no control characters', async (t) => {
  const pairing = (url: string) => schemas.createPairingBody.fault({ kind: 'ftp', url, inbox: '/in' }, 'body')
  t.equal(pairing('ftp://h/d'), undefined)
  for (const bad of ['\r', '\n', '\0', '\x1b', '\x7f', '\x85']) {
    t.match(pairing(`ftp://h${bad}DELE x`), /^body\/url must match pattern/)
  }
  t.match(schemas.adoptBody.fault({ path: '/a\0b' }, 'body'), /^body\/path/)
  t.equal(schemas.adoptBody.fault({ path: '/a\nb' }, 'body'), undefined, 'a path may have any other')
})

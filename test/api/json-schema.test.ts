import t from 'tap'
import { Type as Typebox } from 'typebox'
import { Type } from '../../src/api/json-schema.js'

type Builders = typeof Type

/** Each builder, with options and without, and what is optional in an object in an object. */
const made = (T: Builders) => ({
  text: T.String(),
  letters: T.String({ minLength: 1, maxLength: 9, pattern: '^a' }),
  kind: T.Enum(['one', 'two']),
  flag: T.Boolean(),
  count: T.Integer({ minimum: 1 }),
  plain: T.Integer(),
  measure: T.Number(),
  either: T.Union([T.Integer(), T.Null()]),
  list: T.Array(T.String(), { minItems: 1, uniqueItems: true }),
  lists: T.Array(T.Array(T.Number())),
  nothing: T.Object({}, { additionalProperties: false }),
  allOptional: T.Object({ a: T.Optional(T.String()) }),
  mixed: T.Object(
    { a: T.Optional(T.Object({ c: T.Optional(T.Boolean()), d: T.Null() })), b: T.String() },
    { additionalProperties: false, minProperties: 1 },
  ),
})

t.test('schemas are what typebox makes of the same calls', async (t) => {
  const [ours, theirs] = [made(Type), made(Typebox as unknown as Builders)]
  for (const name of Object.keys(ours) as (keyof typeof ours)[]) {
    t.same(JSON.parse(JSON.stringify(ours[name])), JSON.parse(JSON.stringify(theirs[name])), name)
  }
})

t.test('a field that is optional in one object is so nowhere else', async (t) => {
  const name = Type.String()
  const [one, other] = [Type.Object({ name: Type.Optional(name) }), Type.Object({ name })]
  t.notOk('required' in one)
  t.same(other.required, ['name'])
})

import fastify from 'fastify'
import t from 'tap'
import { Type } from '../../src/api/json-schema.js'
import { oncePerSchema, serializerOnDemand, validatorOnDemand } from '../../src/api/on-demand.js'

t.test('a schema is compiled when it is needed, and once for all who share it', async (t) => {
  const compiled: string[] = []
  const compile = oncePerSchema(({ schema }: { schema: { name: string } }) => {
    compiled.push(schema.name)
    return () => schema.name
  })
  const [shared, own] = [{ name: 'shared' }, { name: 'own' }]
  t.equal(compile({ schema: shared })(), 'shared')
  t.equal(compile({ schema: shared })(), 'shared')
  t.equal(compile({ schema: own })(), 'own')
  t.same(compiled, ['shared', 'own'])
})

t.test('routes that nobody asks for are not compiled, others check and shape as before', async (t) => {
  const app = fastify()
  app.setValidatorCompiler(validatorOnDemand())
  app.setSerializerCompiler(serializerOnDemand())
  const strict = { additionalProperties: false } as const
  const body = Type.Object({ count: Type.Integer() }, strict)
  const response = { 200: Type.Object({ count: Type.Integer() }) }
  // Looked at by whoever compiles the schema.
  let looked = 0
  const unused = {
    type: 'object',
    get properties() {
      looked += 1
      return {}
    },
  }
  app.post('/used', { schema: { body, response } }, async ({ body }) => ({ ...(body as object), secret: 'kept' }))
  app.post('/unused', { schema: { body: unused } }, async () => ({}))
  await app.ready()
  const lookedAtStart = looked
  const post = async (url: string, payload: object) => {
    const { statusCode, body } = await app.inject({ method: 'POST', url, payload })
    return { statusCode, body: JSON.parse(body) }
  }
  t.same(
    await post('/used', { count: 3 }),
    { statusCode: 200, body: { count: 3 } },
    'no field that is not in the schema',
  )
  for (const wrong of [{ count: '3' }, { count: 3, more: 1 }, {}]) {
    const { statusCode, body } = await post('/used', wrong)
    t.equal(statusCode, 400, JSON.stringify(wrong))
    t.match(body.message, /^body.* must/, 'and the reason is said')
  }
  t.equal((await post('/used', { count: 4 })).statusCode, 200, 'a refusal leaves nothing behind')
  t.equal(looked, lookedAtStart)
  await post('/unused', {})
  t.ok(looked > lookedAtStart, 'it is compiled by its first request')
  await app.close()
})

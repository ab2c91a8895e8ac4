import validators from '@fastify/ajv-compiler'
import serializers from '@fastify/fast-json-stringify-compiler'

interface Refusal {
  readonly keyword: string
  readonly instancePath: string
  readonly schemaPath: string
  readonly params: Record<string, unknown>
  readonly message?: string
}

interface Route {
  readonly schema: unknown
}

/** As fastify calls it: what is wrong is a field of the function. */
type Validate = ((data: unknown) => boolean) & { errors?: Refusal[] | null }

const strict = { coerceTypes: false, removeAdditional: false, useDefaults: false, allErrors: false } as const

/**
 * What fastify compiles schemas with: when a request needs one first, and once however many routes share it. To compile
 * all of them would be a third of an agent's start, for which hosts may be waiting.
 */
export function validatorOnDemand(): (route: Route) => Validate {
  // Its types leave out that it takes a route.
  const compile = oncePerSchema(validators()({}, { customOptions: strict }) as unknown as (route: Route) => Validate)
  return (route) => {
    const validate: Validate = (data) => {
      const compiled = compile(route)
      const isValid = compiled(data)
      validate.errors = compiled.errors ?? null
      return isValid
    }
    return validate
  }
}

/** The same for what it answers with. */
export function serializerOnDemand(): (route: Route) => (data: unknown) => string {
  const compile = oncePerSchema(serializers()() as (route: never) => (data: unknown) => string)
  return (route) => (data) => compile(route as never)(data)
}

export function oncePerSchema<R extends Route, F>(compile: (route: R) => F): (route: R) => F {
  const made = new Map<unknown, F>()
  return (route) => {
    const known = made.get(route.schema)
    if (known !== undefined) return known
    const fresh = compile(route)
    made.set(route.schema, fresh)
    return fresh
  }
}

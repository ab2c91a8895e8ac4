import type { Type as Typebox } from 'typebox'

export type { Static, TObject, TSchema } from 'typebox'

type Schema = Readonly<Record<string | symbol, unknown>>
type Options = Readonly<Record<string, unknown>>

/** No keyword of JSON Schema: an object leaves such a field out of what it requires. */
const optional = Symbol('optional')

const builders = {
  Array: (items: Schema, options?: Options): Schema => ({ type: 'array', items, ...options }),
  Boolean: (): Schema => ({ type: 'boolean' }),
  Enum: (values: readonly string[]): Schema => ({ enum: values }),
  Integer: (options?: Options): Schema => ({ type: 'integer', ...options }),
  Null: (): Schema => ({ type: 'null' }),
  Number: (): Schema => ({ type: 'number' }),
  Object: (properties: Readonly<Record<string, Schema>>, options?: Options): Schema => {
    const required = Object.keys(properties).filter((name) => !properties[name]![optional])
    return { type: 'object', ...(required.length > 0 ? { required } : {}), properties, ...options }
  },
  Optional: (schema: Schema): Schema => ({ ...schema, [optional]: true }),
  String: (options?: Options): Schema => ({ type: 'string', ...options }),
  Union: (alternatives: readonly Schema[]): Schema => ({ anyOf: alternatives }),
}

/**
 * What typebox makes of the same calls, and with its types: its own 370 modules would be a sixth of an agent's start,
 * for which hosts may be waiting.
 */
export const Type = builders as unknown as Pick<typeof Typebox, keyof typeof builders>

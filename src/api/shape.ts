/**
 * The shape of what comes in and goes out, as a value: the compiler reads the type from it, the server checks requests
 * with it and takes from an answer what belongs there.
 *
 * Strict: nothing is coerced and unknown fields of a request are refused. Ready when it is loaded, with nothing to
 * compile: an agent that starts again keeps hosts waiting.
 */
import assert from 'node:assert/strict'

export interface Shape<T> {
  /** For messages: `string`, `integer or null`. */
  readonly what: string
  /** The first thing that is wrong, beginning with where (`/devices/0/path must be string`); undefined when nothing is. */
  readonly fault: (value: unknown, at: string) => string | undefined
  /** The fields of the shape and no others. @throws AssertionError when there is not what the shape says */
  readonly take: (value: unknown, at: string) => unknown
  /** A field that may be missing. */
  readonly optional?: true
  /** Never there: it carries the type. */
  readonly type?: T
}

// biome-ignore lint/suspicious/noExplicitAny: a shape of whatever
export type AnyShape = Shape<any>
type OptionalShape<T> = Shape<T> & { readonly optional: true }
export type Static<S extends AnyShape> = S extends Shape<infer T> ? T : never

export type Fields = Readonly<Record<string, AnyShape>>
type OptionalKeys<F extends Fields> = { [K in keyof F]: F[K] extends { optional: true } ? K : never }[keyof F]
type Merge<T> = { [K in keyof T]: T[K] }
type StaticFields<F extends Fields> = Merge<
  { [K in Exclude<keyof F, OptionalKeys<F>>]: Static<F[K]> } & { [K in OptionalKeys<F>]?: Static<F[K]> }
>

/** A value without parts. */
function leaf<T>(what: string, holds: (value: unknown) => boolean): Shape<T> {
  const fault = (value: unknown, at: string) => (holds(value) ? undefined : `${at} must be ${what}`)
  return { what, fault, take: takeWhole(fault) }
}

function takeWhole(fault: Shape<unknown>['fault']): Shape<unknown>['take'] {
  return (value, at) => {
    const found = fault(value, at)
    assert(found === undefined, `an answer is not what it should be: ${found}`)
    return value
  }
}

export const boolean = leaf<boolean>('boolean', (value) => typeof value === 'boolean')
export const nothing = leaf<null>('null', (value) => value === null)
export const number = leaf<number>('number', (value) => typeof value === 'number' && !Number.isNaN(value))

const anyInteger = leaf<number>('integer', Number.isInteger)
export const integer: Shape<number> = {
  ...anyInteger,
  // What was computed as a fraction goes out without it.
  take: (value, at) => anyInteger.take(typeof value === 'number' ? Math.trunc(value) : value, at),
}

/** At least 1, and exact. */
export const positiveInteger = leaf<number>(
  'a whole number from 1 to 2^53 - 1',
  (value) => Number.isSafeInteger(value) && (value as number) >= 1,
)

export interface TextLimits {
  /** In characters, as people count them. */
  readonly min?: number
  readonly max?: number
  readonly pattern?: RegExp
}

export function string({ min = 0, max = Number.POSITIVE_INFINITY, pattern }: TextLimits = {}): Shape<string> {
  const fault = (value: unknown, at: string): string | undefined => {
    if (typeof value !== 'string') return `${at} must be string`
    const length = value.length > max || value.length < min * 2 ? [...value].length : value.length
    if (length < min) return `${at} must NOT have fewer than ${min} characters`
    if (length > max) return `${at} must NOT have more than ${max} characters`
    if (pattern && !pattern.test(value)) return `${at} must match pattern ${pattern.source}`
    return undefined
  }
  return { what: 'string', fault, take: takeWhole(fault) }
}

export function oneOf<const T extends string>(values: readonly T[]): Shape<T> {
  return leaf<T>(`one of ${values.join(', ')}`, (value) => values.includes(value as T))
}

/** The first alternative that holds. */
export function either<A, B>(first: Shape<A>, second: Shape<B>): Shape<A | B> {
  const what = `${first.what} or ${second.what}`
  const fault = (value: unknown, at: string) =>
    first.fault(value, at) === undefined || second.fault(value, at) === undefined ? undefined : `${at} must be ${what}`
  return { what, fault, take: takeWhole(fault) }
}

export function orNull<T>(shape: Shape<T>): Shape<T | null> {
  return {
    what: `${shape.what} or null`,
    fault: (value, at) => (value === null ? undefined : shape.fault(value, at)),
    take: (value, at) => (value === null ? null : shape.take(value, at)),
  }
}

export function optional<T>(shape: Shape<T>): OptionalShape<T> {
  return { ...shape, optional: true }
}

export interface ListLimits {
  readonly min?: number
  readonly max?: number
  /** Of plain values. */
  readonly unique?: boolean
}

export function list<T>(
  item: Shape<T>,
  { min = 0, max = Number.POSITIVE_INFINITY, unique = false }: ListLimits = {},
): Shape<T[]> {
  const fault = (value: unknown, at: string): string | undefined => {
    if (!Array.isArray(value)) return `${at} must be array`
    if (value.length < min) return `${at} must NOT have fewer than ${min} items`
    if (value.length > max) return `${at} must NOT have more than ${max} items`
    if (unique && new Set(value).size < value.length) return `${at} must NOT have one item twice`
    return firstOf(value.entries(), ([index, one]) => item.fault(one, `${at}/${index}`))
  }
  const take = (value: unknown, at: string): unknown => {
    assert(Array.isArray(value), `an answer is not what it should be: ${at} must be array`)
    return value.map((one, index) => item.take(one, `${at}/${index}`))
  }
  return { what: 'array', fault, take }
}

export function object<F extends Fields>(fields: F, limits: { readonly min?: number } = {}): Shape<StaticFields<F>> {
  const known = new Map(Object.entries(fields))
  const fault = (value: unknown, at: string): string | undefined => {
    if (!isObject(value)) return `${at} must be object`
    const given = Object.keys(value)
    if (given.length < (limits.min ?? 0)) return `${at} must NOT have fewer than ${limits.min} properties`
    return (
      firstOf(known, ([key, { optional }]) =>
        optional || Object.hasOwn(value, key) ? undefined : `${at} must have required property '${key}'`,
      ) ??
      firstOf(given, (key) =>
        known.has(key) ? undefined : `${at} has the unknown field ${JSON.stringify(key.slice(0, 80))}`,
      ) ??
      firstOf(given, (key) => known.get(key)!.fault(value[key], `${at}/${key}`))
    )
  }
  const take = (value: unknown, at: string): unknown => {
    assert(isObject(value), `an answer is not what it should be: ${at} must be object`)
    const taken: Record<string, unknown> = {}
    for (const [key, shape] of known) {
      if (!shape.optional || value[key] !== undefined) taken[key] = shape.take(value[key], `${at}/${key}`)
    }
    return taken
  }
  return { what: 'object', fault, take }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function firstOf<T>(items: Iterable<T>, find: (item: T) => string | undefined): string | undefined {
  for (const item of items) {
    const found = find(item)
    if (found !== undefined) return found
  }
  return undefined
}

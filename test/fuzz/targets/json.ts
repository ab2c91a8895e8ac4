import assert from 'node:assert/strict'
import { JsonRefusal, parseStrictJson } from '../../../src/api/strict-json.js'
import { StorageError } from '../../../src/block/storage-error.js'
import type { OpenTarget } from '../target.js'

const samples = [
  '{"name":"v","path":"/srv/v.img","sizeBytes":1073741824}',
  '{"volumes":["a","b"],"destination":"far","epochMs":1000,"held":false,"x":null}',
  '[1,-2.5e3,"\\u0041\\"\\\\",{"a":{"b":[]}}]',
]

/** A body of the API. What is taken is what JSON.parse makes of it, without keys or numbers that mean something else. */
export const json: OpenTarget = () => ({
  words: ['"__proto__":', '"constructor":', '1e309', '9007199254740993', '\\u0000', '[[[[[[[[', '{"a":', '"a"'].map(
    (text) => Buffer.from(text),
  ),
  seeds: () => samples.map((text) => Buffer.from(text)),
  run(input) {
    const text = input.toString('utf8')
    let value: unknown
    try {
      value = parseStrictJson(text)
    } catch (error) {
      if (!(error instanceof JsonRefusal)) throw error
      throw new StorageError('REFUSED', { op: 'parse', object: 'body', hint: error.message })
    }
    assert.deepEqual(value, JSON.parse(text))
    checkSound(value)
  },
})

function checkSound(value: unknown): void {
  if (typeof value === 'number') assert(Math.abs(value) <= Number.MAX_SAFE_INTEGER)
  if (typeof value !== 'object' || value === null) return
  assert(Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype)
  for (const inner of Object.values(value)) checkSound(inner)
}

import assert from 'node:assert/strict'
import { parse } from 'node:querystring'
import type { AgentOperations } from '../../../src/api/agent-operations.js'
import { validatorOnDemand } from '../../../src/api/on-demand.js'
import { routes } from '../../../src/api/routes.js'
import { JsonRefusal, parseStrictJson } from '../../../src/api/strict-json.js'
import { StorageError } from '../../../src/block/storage-error.js'
import type { OpenTarget } from '../target.js'

const samples: Readonly<Record<string, readonly string[]>> = {
  '/v1/pools': ['{"name":"p","devices":[{"path":"/dev/x","kind":"file","size":"1GiB"}],"unit":"8MiB","block":65536}'],
  '/v1/pool-imports': ['{"paths":["/dev/x"]}'],
  '/v1/pools/:name/extend': ['{"path":"/dev/x","kind":"device","force":true}'],
  '/v1/volumes': ['{"name":"v","path":"/srv/v","size":"1GiB"}', '{"name":"v","pool":"p","size":1073741824}'],
  '/v1/volumes/:name/resize': ['{"size":"2GiB","force":true}'],
  '/v1/clones': ['{"name":"c","volume":"v","snapshot":"s","full":true}'],
  '/v1/pairings': ['{"kind":"https","listen":"h:1"}', '{"kind":"ftp","url":"ftp://h/","inbox":"/srv/in"}'],
  '/v1/destinations': ['{"name":"d","pairing":"tidemark1-x"}'],
  '/v1/streams': ['{"name":"s","volumes":["v"],"destination":"d","epoch":"1s","policy":"strict","wait":"30s"}'],
}

/** First byte: which route. Then a line `NAME?QUERY`, and the body. */
export const request: OpenTarget = () => {
  const validator = validatorOnDemand()
  const check = (schema: unknown, value: unknown, what: string): void => {
    if (schema !== undefined && !validator({ schema })(value)) throw refused(what)
  }
  // Whatever is asked for: nothing that is not a plain value, and no number that is none, gets there.
  const operations = new Proxy({} as AgentOperations, {
    get:
      () =>
      async (...given: unknown[]) =>
        checkPlain(given),
  })
  return {
    words: ['"size":', '"force":', '"name":', '"../x"', '"1e3GiB"', '-1', 'null', '?yes=true', '?readOnly=true&'].map(
      (text) => Buffer.from(text),
    ),
    seeds: () =>
      routes.flatMap(({ url }, index) =>
        (samples[url] ?? ['', '{}']).map((body) =>
          Buffer.concat([Buffer.of(index), Buffer.from(`v?after=1&from=a\n${body}`)]),
        ),
      ),
    async run(input) {
      const route = routes[(input[0] ?? 0) % routes.length]!
      const text = input.toString('utf8', 1)
      const [line = ''] = text.split('\n', 1)
      const [name = '', query = ''] = line.split('?', 2)
      const given = {
        params: route.url.includes(':snapshot') ? { name, snapshot: name } : { name },
        query: { ...parse(query) },
        body: route.body === undefined ? undefined : parseBody(text.slice(line.length + 1)),
      }
      check(route.params, given.params, 'name')
      check(route.query, given.query, 'query')
      check(route.body, given.body, 'body')
      await route.handle(operations, given)
    },
  }
}

function parseBody(text: string): unknown {
  try {
    return parseStrictJson(text)
  } catch (error) {
    throw error instanceof JsonRefusal ? refused('body') : error
  }
}

function checkPlain(value: unknown): void {
  if (typeof value === 'number') assert(Number.isFinite(value) && value >= 0, `${value}`)
  if (typeof value !== 'object' || value === null) return
  assert(Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype)
  for (const inner of Object.values(value)) checkPlain(inner)
}

function refused(object: string): StorageError {
  return new StorageError('REFUSED', { op: 'request', object, hint: '' })
}

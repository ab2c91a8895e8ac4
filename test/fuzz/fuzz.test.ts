/** What the fuzzer calls a finding, and what it does not. */
import { rmSync } from 'node:fs'
import t from 'tap'
import { newSeed } from '../pool/model/random.js'
import { fuzz } from './fuzz.js'

const module = new URL('../fixtures/fuzz/faulty-targets.js', import.meta.url).href
const limits = { seconds: 20, seed: newSeed(), limitMs: 1000, module }

async function findingOf(target: string): Promise<string | undefined> {
  const { finding } = await fuzz({ ...limits, target })
  if (finding) rmSync(finding.file)
  return finding?.text
}

t.test('an input that has no end is found by the processor time it takes', async (t) => {
  t.match(await findingOf('endless'), /no end after 1000 ms of processor time/)
})

t.test('memory that stays when all is collected is found', async (t) => {
  t.match(await findingOf('leaking'), /MiB more memory/)
})

t.test('an error that is no StorageError is found', async (t) => {
  t.match(await findingOf('throwing'), /ERR_(OUT_OF_RANGE|BUFFER_OUT_OF_BOUNDS)|RangeError/)
})

t.test('an input that only waits is none, however long: the machine may be slow', async (t) => {
  const { finding, runs } = await fuzz({ ...limits, target: 'sleeping', seconds: 4 })
  t.equal(finding, undefined)
  t.ok(runs > 1 && runs < 8, `${runs} inputs`)
})

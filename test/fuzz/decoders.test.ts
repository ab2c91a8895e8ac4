/** A while of tools/fuzz for each decoder (FUZZ_SECONDS, default 6); its corpus first. Two at a time, at the lowest priority. */
import t from 'tap'
import { newSeed } from '../pool/model/random.js'
import { fuzzApart } from './fuzz-apart.js'
import { targets } from './targets.js'

const seconds = Number(process.env.FUZZ_SECONDS ?? 6)
const seed = newSeed()
t.comment(`seed ${seed} (SEED=${seed} repeats it)`)
t.jobs = 2

for (const target of Object.keys(targets)) {
  const fact = `${target}: whatever the bytes, they are read or refused, in time and in little memory`
  t.test(fact, { buffered: true }, async (t) => {
    const { runs, blocks, corpus, codes, finding } = await fuzzApart({ target, seconds, seed })
    t.comment(`${runs} inputs, ${blocks} blocks, corpus ${corpus}: ${JSON.stringify(codes)}`)
    t.equal(finding, undefined)
    t.ok((codes.taken ?? 0) > 0, 'some are taken')
    t.ok(Object.keys(codes).length > 1, 'and some are refused')
  })
}

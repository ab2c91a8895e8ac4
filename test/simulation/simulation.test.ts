/** Both sides' planners with crashes, a bad network, initialisations and holds in any order, in virtual time. */
import t from 'tap'
import { newSeed } from '../pool/model/random.js'
import { simulate } from './simulation.js'

const seconds = 10
const seed = newSeed()
t.comment(`seed ${seed} (SEED=${seed} repeats it)`)

t.test('whatever happens in whatever order, what is shown is the source as it was, and the end is equal', async (t) => {
  const deadline = performance.now() + seconds * 1000
  const sums = { runs: 0, steps: 0, epochs: 0, generations: 0, statesJudged: 0, letGoes: 0, tornGenerations: 0 }
  for (; performance.now() < deadline || sums.tornGenerations === 0; sums.runs += 1) {
    const figures = await simulate(seed + sums.runs, 20_000)
    sums.steps += figures.steps
    sums.epochs += figures.epochs
    sums.generations += figures.generations
    sums.statesJudged += figures.statesJudged
    sums.letGoes += figures.letGoes
    sums.tornGenerations += figures.tornGenerations
  }
  t.comment(JSON.stringify(sums))
  t.ok(sums.steps >= 20_000, `${sums.steps} steps`)
  t.ok(sums.statesJudged > 100, `${sums.statesJudged} states were judged`)
  t.ok(sums.generations > sums.runs && sums.letGoes > 0 && sums.tornGenerations > 0, 'nothing was left out')
})

t.test('the same seed is the same run', async (t) => {
  t.same(await simulate(seed, 5000), await simulate(seed, 5000))
})

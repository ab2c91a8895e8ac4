import t from 'tap'
import { scratchFolder } from '../fixtures/paths.js'
import { newSeed } from './model/random.js'
import { runModel } from './model/run.js'

const limitMs = 40_000

for (const powerCuts of [false, true]) {
  const what = powerCuts
    ? 'after a power cut whatever was flushed is there, and nothing that nobody wrote'
    : 'after kill -9, also under load, every acknowledged write is there'
  t.test(what, async (t) => {
    const seed = newSeed()
    t.comment(`seed ${seed}`)
    const folder = scratchFolder(t, 'model-crash')
    const least = { kills: 4, powerCuts: powerCuts ? 2 : 0 }
    const figures = await runModel({ seed, steps: 1500, folder, kills: true, powerCuts, limitMs, least })
    t.comment(JSON.stringify(figures))
    t.ok(figures.kills >= 4, 'it was killed again and again')
    if (powerCuts) t.ok(figures.powerCuts >= 2, 'and lost its power')
  })
}

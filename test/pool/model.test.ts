import t from 'tap'
import { scratchFolder } from '../fixtures/paths.js'
import { newSeed } from './model/random.js'
import { runModel } from './model/run.js'

const limitMs = 20_000

for (const [index, steps] of [1200, 1200, 1200].entries()) {
  t.test(`every byte of every volume and snapshot is what the model says, run ${index + 1}`, async (t) => {
    const seed = newSeed()
    t.comment(`seed ${seed}`)
    const folder = scratchFolder(t, 'model')
    const figures = await runModel({
      seed,
      steps,
      folder,
      kills: false,
      powerCuts: false,
      limitMs,
      least: { steps: 300, verifications: 3 },
    })
    t.comment(JSON.stringify(figures))
    t.ok(figures.steps >= 300, 'it went through hundreds of steps')
    t.ok(figures.verifications >= 3)
  })
}

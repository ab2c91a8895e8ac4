/** tools/model: runs of the model test that are longer than those of the test suite, or one run again. */
import { parseArgs } from 'node:util'
import { scratchFolder } from '../../fixtures/paths.js'
import { newSeed } from './random.js'
import { runModel } from './run.js'

const usage = `Usage: tools/model [--seed S] [--steps N] [--runs N] [--kills] [--power-cuts]

  --seed S       begin with this seed (default: a new one)
  --steps N      steps of each run (default: 2000)
  --runs N       runs, each with the next seed (default: 1)
  --kills        kill -9 between steps and under load
  --power-cuts   --kills, and half of the kills lose what was not durable
`

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    steps: { type: 'string', default: '2000' },
    runs: { type: 'string', default: '1' },
    kills: { type: 'boolean', default: false },
    'power-cuts': { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
const first = values.seed === undefined ? newSeed() : Number(values.seed)
const [steps, runs] = [Number(values.steps), Number(values.runs)]
if (values.help || ![first, steps, runs].every(Number.isSafeInteger)) {
  process.stdout.write(usage)
  process.exit(values.help ? 0 : 2)
}

const finish: (() => void)[] = []
try {
  for (let seed = first; seed < first + runs; seed++) {
    const folder = scratchFolder({ teardown: (done) => finish.push(done) }, 'model')
    const begin = Date.now()
    const powerCuts = values['power-cuts']
    const figures = await runModel({ seed, steps, folder, kills: values.kills || powerCuts, powerCuts })
    console.log(`seed ${seed}: ${JSON.stringify(figures)} in ${((Date.now() - begin) / 1000).toFixed(1)} s`)
  }
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
} finally {
  for (const done of finish) done()
}

/** Seeds one after the other for a while: node dist/test/simulation/main.js --seconds N --seed S [--steps N] */
import { parseArgs } from 'node:util'
import { newSeed } from '../pool/model/random.js'
import { simulate } from './simulation.js'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '10' },
    seed: { type: 'string' },
    steps: { type: 'string', default: '20000' },
  },
})
const first = values.seed === undefined ? newSeed() : Number(values.seed)
const deadline = performance.now() + Number(values.seconds) * 1000
let seed = first
let total = 0
try {
  for (; performance.now() < deadline; seed += 1) total += (await simulate(seed, Number(values.steps))).steps
  console.log(`${seed - first} runs, ${total} steps, seeds ${first}..${seed - 1}`)
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
}

/** tools/fuzz: see its usage. */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { StorageError } from '../../src/block/storage-error.js'
import { scratchFolder } from '../fixtures/paths.js'
import { newSeed } from '../pool/model/random.js'
import { fuzz } from './fuzz.js'
import { targets } from './targets.js'

const usage = `Usage: tools/fuzz TARGET|all [--seconds N] [--seed S] [--save] [--blind]
       tools/fuzz TARGET --input FILE

Feeds a decoder with mutations of its corpus, and keeps those that reach code nothing else has reached.
Anything but a StorageError is a finding, and so is what takes too long or too much memory.

  --seconds N    how long, each target (default: 10)
  --seed S       of the mutations (default: a new one)
  --save         add to test/fuzz/corpus what reaches something new
  --nice N       the priority of the search, as nice(1) has it (default: 0)
  --report       one line of JSON instead of text, and an end with the standard input
  --minimise     no search: remove from test/fuzz/corpus what reaches nothing that the rest does not
  --blind        without coverage: for what coverage costs
  --input FILE   feed this alone and show what happens

Targets: ${Object.keys(targets).join(', ')}
`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '10' },
    seed: { type: 'string' },
    save: { type: 'boolean', default: false },
    nice: { type: 'string', default: '0' },
    report: { type: 'boolean', default: false },
    minimise: { type: 'boolean', default: false },
    blind: { type: 'boolean', default: false },
    input: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})
const [name] = positionals
const chosen = name === 'all' ? Object.keys(targets) : [name ?? '']
const seconds = Number(values.seconds)
const nice = Number(values.nice)
const seed = values.seed === undefined ? newSeed() : Number(values.seed)
const known = chosen.every((target) => Object.hasOwn(targets, target))
if (
  values.help ||
  !known ||
  !(seconds > 0) ||
  !Number.isSafeInteger(seed) ||
  !(nice >= 0 && nice <= 19) ||
  (values.minimise && values.blind)
) {
  process.stdout.write(usage)
  process.exit(values.help ? 0 : 2)
}
if (values.input !== undefined) await feedOne(chosen[0]!, values.input)
else await feedAll()

async function feedAll(): Promise<void> {
  // Whoever reads the report ends this with himself.
  if (values.report) process.stdin.on('end', () => process.exit(1)).resume()
  for (const target of chosen) {
    const from = performance.now()
    const { save, blind, minimise } = values
    const report = await fuzz({ target, seconds, seed, nice, save, blind, minimise })
    if (values.report) {
      console.log(JSON.stringify(report))
      continue
    }
    const { runs, blocks, corpus, codes, finding } = report
    const perSecond = Math.round(runs / ((performance.now() - from) / 1000))
    console.log(`${target}: ${runs} inputs, ${perSecond}/s, ${blocks} blocks, corpus ${corpus}, seed ${seed}`)
    console.log(`  ${JSON.stringify(codes)}`)
    if (!finding) continue
    console.log(`  FINDING ${finding.file}\n  ${finding.text}`)
    process.exitCode = 1
  }
  process.stdin.pause()
}

async function feedOne(target: string, file: string): Promise<void> {
  const finish: (() => void)[] = []
  try {
    const opened = await targets[target]!(scratchFolder({ teardown: (done) => finish.push(done) }, 'fuzz'))
    await opened.run(readFileSync(file))
    console.log('taken')
  } catch (error) {
    if (!(error instanceof StorageError)) process.exitCode = 1
    console.log(error)
  } finally {
    for (const done of finish) done()
  }
}

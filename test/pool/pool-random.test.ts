import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { FakeRig } from './fake-rig.js'
import { newSeed, Random } from './model/random.js'
import { RandomPool } from './random-pool.js'

const steps = Number(process.env.STEPS ?? 600)

const stepLimitMs = 20_000

async function within<T>(limitMs: number, step: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('the step does not end')), limitMs)
  })
  try {
    return await Promise.race([step, late])
  } finally {
    clearTimeout(timer)
  }
}

for (const crashes of ['none', 'process', 'power', 'both'] as const) {
  t.test(`random operations show what a host expects; crashes: ${crashes}`, async (t) => {
    const seed = newSeed()
    t.comment(`seed ${seed}`)
    const random = new Random(seed)
    const rig = await FakeRig.create({ deviceBytes: [2 * MiB + MiB / 2, MiB], random })
    t.teardown(() => rig.close())
    const pool = new RandomPool(rig, random)
    await pool.begin()
    let step = 0
    try {
      for (; step < steps; step += 1) await within(stepLimitMs, pool.step(crashes))
      await pool.settle()
      await pool.compareAll('no')
    } catch (error) {
      t.comment(
        `step ${step} of ${crashes}, seed ${seed}: ${pool.done.slice(-Number(process.env.TAIL ?? 40)).join(' ')}`,
      )
      throw error
    }
    t.comment(`${pool.refused} writes found no room`)
    t.notOk(
      rig.events.some(({ code }) => code === 'POOL_FAILED'),
      'the pool never failed',
    )
  })
}

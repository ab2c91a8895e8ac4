import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { flush } from '../fixtures/agent.js'
import { difference, farPath, twoSites } from '../fixtures/sites.js'
import { stampVerify, startStamp } from '../fixtures/stamp.js'
import { newSeed, Random } from '../pool/model/random.js'

const seed = newSeed()
const random = new Random(seed)
t.comment(`seed ${seed} (SEED=${seed} repeats its choices)`)

const sites = await twoSites(t)
const { source, destination, folder } = sites

t.test('an initialisation goes on after kill -9 of either agent, and never begins anew', async (t) => {
  const { device, path } = await source.volume(folder, 'big', '768MiB')
  // The stamps live in the first 32 MiB; what lies behind them keeps the copy busy.
  execFileSync('dd', [
    'if=/dev/urandom',
    `of=${device}`,
    'bs=1M',
    'seek=32',
    'count=736',
    'oflag=direct',
    'status=none',
  ])
  await source.cli('stream', 'create', 'big', '--volume', 'big', '--destination', 'far')
  await source.cli('stream', 'initialize', 'big')
  const log = join(folder, 'big.log')
  const load = { threads: 2, sizes: '512-65536', rate: 200, seconds: 600, blocks: 8192, seed }
  let writer = startStamp(device, log, load)
  const copied = (atLeast: number): Promise<number> =>
    source
      .until(
        () => source.streamStatus('big'),
        ({ initialize }) => initialize === null || initialize.doneBytes >= atLeast,
        120_000,
      )
      .then(({ initialize }) => initialize?.doneBytes ?? Number.POSITIVE_INFINITY)

  const reached = await copied(random.between(32, 256) * MiB)
  t.ok(Number.isFinite(reached), 'the copy is under way')
  // With the destination gone the copy cannot end, however fast the machine is: the source dies in its middle too.
  await destination.kill()
  await source.kill()
  await source.start()
  t.equal((await writer.stop()).errno, 0, 'the host sees nothing of it')
  const after = await source.streamStatus('big')
  t.ok(after.initialize !== null && after.initialize.doneBytes >= reached, `and goes on: ${JSON.stringify(after)}`)
  const { device: again } = await source.cli<{ device: string }>('volume', 'show', 'big')
  writer = startStamp(again, log, { ...load, append: true })
  await destination.start()
  await source.until(
    () => source.streamStatus('big'),
    ({ state, initialize }) => state === 'replicating' && initialize === null,
    240_000,
  )
  t.equal((await writer.stop()).errno, 0)
  await flush(source, 'big')
  t.match(await source.streamStatus('big'), { generation: 1 })
  const image = await farPath(sites, 'big')
  t.equal(await difference(path, image), '')
  const head = join(folder, 'head')
  execFileSync('dd', [`if=${image}`, `of=${head}`, 'bs=1M', 'count=32', 'status=none'])
  const verdict = stampVerify(head, log, { requireAll: true })
  t.match(verdict, { ok: true }, JSON.stringify(verdict))
})

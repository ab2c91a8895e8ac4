import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { newPairing } from '../../src/transport/pairing.js'
import { formatPairing } from '../../src/transport/pairing-string.js'
import { Agent, delay, flush } from '../fixtures/agent.js'
import { scratchFolder } from '../fixtures/paths.js'
import { Postman } from '../fixtures/postman.js'
import { difference } from '../fixtures/sites.js'
import { stampVerify, startStamp } from '../fixtures/stamp.js'
import { Random } from '../pool/model/random.js'
import { ObservedStream } from './observed-stream.js'

/** A slow machine gets so much longer for the same work. */
const patience = 10

/**
 * A source agent, a destination that is looked at after every epoch, and a bad postman in between, for `seconds` and as
 * long as it takes until each kind of fault has happened.
 */
export async function carriedBadly(t: Test, { seed, seconds }: { seed: number; seconds: number }): Promise<void> {
  const name = 'net-postman'
  const folder = scratchFolder(t, 'postman')
  const [outbox, between] = [join(folder, 'outbox'), join(folder, 'between')]
  for (const each of [outbox, between]) mkdirSync(each)
  const source = await Agent.start(t, folder, 'source')
  const pairing = newPairing({ kind: 'folder', directory: outbox })
  await source.cli('destination', 'add', 'far', '--pairing', formatPairing(pairing))
  const { device } = await source.volume(folder, name, '32MiB')
  const log = join(folder, 'stamps.log')
  const create = ['stream', 'create', name, '--volume', name, '--destination', 'far', '--epoch', '100ms']
  const { id } = await source.cli<{ id: string }>(...create)
  const pair = pairing.id.toString('hex')
  const postman = new Postman(join(outbox, pair, id), join(between, pair, id), join(folder, 'bag'), new Random(seed))
  t.teardown(() => postman.close())
  const observed = new ObservedStream(t, { folder, pairing, arrivesIn: between, streamId: id, log })

  const load = { threads: 2, sizes: '512-65536', rate: 300, seconds: patience * seconds, fsyncEvery: 50, seed }
  const writer = startStamp(device, log, load)
  await source.cli('stream', 'initialize', name)
  await delay(seconds * 1000)
  const enough = () => observed.verdicts.length >= 10 && Object.values(postman.counts).every((count) => count > 0)
  for (let waited = 1; waited < patience && !enough(); waited++) await delay(seconds * 1000)
  t.equal((await writer.stop()).errno, 0)
  postman.isHonest = true
  await delay(1000)
  await flush(source, name)
  const { applied, verdicts, told, image } = observed
  t.comment(`${applied.length} epochs, ${verdicts.length} judged: ${JSON.stringify(postman.counts)}`)
  t.comment(JSON.stringify(Object.fromEntries(told)))
  t.same(
    applied,
    applied.map((_, index) => index + 1),
    'each once and in order',
  )
  t.same(
    verdicts.filter(({ verdict }) => !verdict.ok),
    [],
    'each epoch is a moment of the source',
  )
  t.ok(verdicts.length >= 10, `${verdicts.length} epochs were judged`)
  t.ok(
    Object.values(postman.counts).every((count) => count > 0),
    'every kind of fault has happened',
  )
  t.notOk(told.has('SEQUENCE_FORK') || told.has('DESTAGE_FAILED'), 'nothing else is said to be wrong')
  t.match(stampVerify(image, log, { requireAll: true }), { ok: true, behind: 0 })
  t.equal(await difference(device, image), '')
  t.match(await source.streamStatus(name), { state: 'replicating', generation: 1 })
  await source.cli('stream', 'remove', name)
}

import { setTimeout as delay } from 'node:timers/promises'
import type { Bench } from './bench.js'
import { request } from './host-io.js'
import { refreshImage } from './image.js'
import type { Operations } from './operations.js'
import type { ModelVolume } from './shadow.js'
import { Mismatch } from './verify.js'

const most = { volumes: 3, hostsPerVolume: 2, requests: 40, operations: 4 }

/** Hosts on several volumes at once, while snapshots and clones come and go. Killed in the midst of it, if asked for. */
export async function storm(bench: Bench, operations: Operations, killed: boolean): Promise<void> {
  const { random } = bench
  bench.note(`storm${killed ? ' that is killed' : ''}`)
  const volumes = new Set<ModelVolume>()
  for (let count = random.between(1, most.volumes); count > 0; count--) {
    const volume = operations.someWritable()
    if (volume) volumes.add(volume)
  }
  for (const volume of volumes) await bench.open(volume)
  const requests = killed ? 1000 : random.between(5, most.requests)
  const over = new AbortController()
  const host = async (volume: ModelVolume): Promise<void> => {
    for (let done = 0; done < requests && !over.signal.aborted; done++) await request(bench, volume)
  }
  const work = [operate(bench, operations, volumes, killed, over.signal)]
  for (const volume of volumes) {
    for (let count = random.between(1, most.hostsPerVolume); count > 0; count--) work.push(host(volume))
  }
  if (killed) work.push(kill(bench, random.between(1, 60)))
  // Once the process is being killed errors mean nothing; wrong bytes do.
  const faults: unknown[] = []
  await Promise.all(
    work.map((running) =>
      running.catch((error: unknown) => {
        over.abort()
        if (!bench.killing || error instanceof Mismatch) faults.push(error)
      }),
    ),
  )
  if (faults.length > 0) throw faults[0]
}

/** Only what may happen to volumes in use. */
async function operate(
  bench: Bench,
  operations: Operations,
  busy: ReadonlySet<ModelVolume>,
  killed: boolean,
  over: AbortSignal,
): Promise<void> {
  const { random } = bench
  for (let count = killed ? 1000 : random.between(0, most.operations); count > 0 && !over.aborted; count--) {
    const kind = random.weighted({
      snapshot: 6,
      remove: 4,
      clone: 2,
      grow: 1,
      create: 1,
      rollback: 1,
      image: 1,
      tidy: 1,
      write: 2,
      discard: 1,
    })
    // There may be no volume at all.
    if (kind === 'snapshot' && busy.size === 0) continue
    if (kind === 'snapshot') await operations.createSnapshot(headOf(random.pick([...busy])))
    else if (kind === 'remove') await operations.removeSnapshot(busy)
    else if (kind === 'write') await operations.writeSnapshot()
    else if (kind === 'discard') await operations.discardWrites(busy)
    else if (kind === 'clone') await operations.createClone()
    else if (kind === 'grow') await operations.resize(true)
    else if (kind === 'create') await operations.createVolume()
    else if (kind === 'rollback') await operations.rollback(busy)
    else if (kind === 'tidy') await operations.tidy()
    else if (!killed) await refreshImage(bench, operations, busy)
    await delay(random.below(8))
  }
}

/** A snapshot is made of a volume, not of what was written to one of its snapshots. */
function headOf(volume: ModelVolume): ModelVolume {
  return volume.of?.volume ?? volume
}

async function kill(bench: Bench, afterMs: number): Promise<void> {
  await delay(afterMs)
  bench.note('kill')
  bench.killing = true
  await bench.child.kill()
}

import t from 'tap'
import { workerEnded } from '../../src/block/worker-calls.js'
import { type PackWorker, PackWorkers } from '../../src/replication/pack-workers.js'

const tickMs = 4
const ticks = (count: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, count * tickMs))

/** A worker that takes turns, as a real one; streams whose disk hangs are listed. */
class Worker implements PackWorker {
  readonly asked: string[] = []
  abandoned = false
  /** The kernel lets go of it at once, or does not. */
  static lingers = false
  readonly #hangs: ReadonlySet<string>
  #last: Promise<unknown> = Promise.resolve()
  readonly #failures: ((error: Error) => void)[] = []

  constructor(hangs: ReadonlySet<string>) {
    this.#hangs = hangs
  }

  call<T>(method: string, argument: unknown): Promise<T> {
    const stream = String(argument)
    return new Promise<T>((resolve, reject) => {
      this.#failures.push(reject)
      const work = async (): Promise<void> => {
        if (this.abandoned) return
        this.asked.push(`${method} ${stream}`)
        while (this.#hangs.has(stream) && !this.abandoned) await ticks(1)
        if (!this.abandoned) resolve(stream as T)
      }
      if (method === 'written') work()
      else this.#last = this.#last.then(work)
    })
  }

  async abandon(): Promise<void> {
    this.abandoned = true
    for (const fail of this.#failures) fail(workerEnded('pack-worker', 'abandoned'))
    if (Worker.lingers) await new Promise(() => undefined)
  }

  close(): Promise<void> {
    return this.abandon()
  }
}

function workers(t: { teardown(action: () => Promise<void>): void }) {
  const hangs = new Set<string>()
  const started: Worker[] = []
  const start = (): Worker => {
    const worker = new Worker(hangs)
    started.push(worker)
    return worker
  }
  const all = new PackWorkers({ start, tickMs })
  t.teardown(() => all.close())
  const pack = (stream: string, signal?: AbortSignal): Promise<string> => all.of(stream).call('pack', stream, signal)
  const epoch = async (stream: string): Promise<string> => {
    await pack(stream)
    return all.of(stream).call('written', stream)
  }
  return { all, hangs, started, pack, epoch, living: () => started.filter(({ abandoned }) => !abandoned).length }
}

t.test(
  'one worker for all streams, and one of its own for a stream that hangs, until an epoch of it went well',
  async (t) => {
    const { hangs, started, pack, epoch, living } = workers(t)
    t.same(await Promise.all([epoch('a'), epoch('b')]), ['a', 'b'])
    t.equal(started.length, 1)

    hangs.add('a')
    const hung = pack('a')
    const behind = pack('b')
    await t.rejects(hung, { code: 'DISK_HANGS', retry: 'later' })
    await t.rejects(behind, { code: 'WORKER_ENDED', retry: 'later' })
    t.equal(await epoch('b'), 'b', 'asked again, by the next worker')
    t.equal(started.length, 2)
    t.ok(started[0]!.abandoned)

    const again = epoch('a')
    await ticks(80)
    t.equal(await epoch('b'), 'b', 'while the other hangs as long as it likes')
    t.equal(living(), 2)
    hangs.clear()
    t.equal(await again, 'a')
    // Slow as that epoch was it stays by itself for one more.
    await epoch('a')
    t.equal(living(), 1, 'back to the others')
    await epoch('a')
    t.equal(started.length, 3)
  },
)

t.test('a file that is not written holds nobody up either, and who only waits behind it comes back', async (t) => {
  const { all, hangs, pack, epoch, living } = workers(t)
  await pack('a')
  hangs.add('a')
  const written = all.of('a').call('written', 'a')
  await t.rejects(written, { code: 'DISK_HANGS' })
  t.equal(await epoch('b'), 'b')
  hangs.clear()
  await epoch('a')
  t.equal(living(), 1)
})

t.test('what is aborted ends while its disk hangs', async (t) => {
  const { hangs, pack, epoch, living } = workers(t)
  hangs.add('a')
  await t.rejects(pack('a'), { code: 'DISK_HANGS' })
  const stop = new AbortController()
  const hung = pack('a', stop.signal)
  await ticks(5)
  stop.abort()
  await t.rejects(hung, { code: 'WORKER_ENDED' })
  await t.rejects(pack('a', stop.signal), { code: 'WORKER_ENDED' }, 'also what begins later')
  t.equal(living(), 1)
  t.equal(await epoch('b'), 'b')
})

t.test('eight hang beside the others; of more the others wait', async (t) => {
  const { hangs, pack, epoch, living } = workers(t)
  const names = Array.from({ length: 8 }, (_, index) => `hung-${index}`)
  for (const name of [...names, 'ninth']) hangs.add(name)
  for (const name of names) {
    await t.rejects(pack(name), { code: 'DISK_HANGS' })
    pack(name).catch(() => undefined)
  }
  t.equal(living(), 9)
  let answered = false
  const ninth = epoch('ninth').then(() => {
    answered = true
  })
  const behind = epoch('b')
  await ticks(60)
  t.notOk(answered)
  t.equal(living(), 9)
  hangs.delete('ninth')
  await ninth
  t.equal(await behind, 'b')
})

t.test('workers that the kernel does not let go of are counted, and end nobody’s stop', async (t) => {
  Worker.lingers = true
  t.teardown(() => {
    Worker.lingers = false
  })
  const { all, hangs, started, pack } = workers(t)
  for (let index = 0; index < 8; index++) {
    hangs.add(`hung-${index}`)
    await t.rejects(pack(`hung-${index}`), { code: 'DISK_HANGS' })
  }
  await t.rejects(pack('hung-0'), { code: 'DISK_HANGS', hint: /several others/ })
  const count = started.length
  hangs.add('ninth')
  pack('ninth').catch(() => undefined)
  await ticks(60)
  t.equal(started.length, count, 'no more of them')
  await all.close()
})

t.test('a worker of its own that nobody asks anything goes', async (t) => {
  const { hangs, pack, living } = workers(t)
  hangs.add('a')
  await t.rejects(pack('a'), { code: 'DISK_HANGS' })
  hangs.clear()
  await pack('a')
  t.equal(living(), 2)
  await ticks(40)
  t.equal(living(), 1)
})

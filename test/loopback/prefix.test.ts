import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { delay, flush, mirror } from '../fixtures/agent.js'
import { atRest, difference, farPath, twoSites } from '../fixtures/sites.js'
import { type StampWriteOptions, stampClock, stampVerify, startStamp } from '../fixtures/stamp.js'

const sites = await twoSites(t)
const { source, folder } = sites

const loads: [string, StampWriteOptions, string][] = [
  ['one thread, 4 KiB', { threads: 1, sizes: '4096', blocks: 512, rate: 1500 }, '200ms'],
  ['four threads, 512 B to 128 KiB', { threads: 4, sizes: '512-131072', rate: 300 }, '150ms'],
]
for (const [index, [title, load, epoch]] of loads.entries()) {
  t.test(`at every epoch boundary the far side is a moment of the source: ${title}`, async (t) => {
    const name = `prefix${index}`
    const log = join(folder, `${name}.log`)
    const { device } = await source.volume(folder, name, '32MiB')
    await mirror(source, name, [name], epoch)
    const writer = startStamp(device, log, { ...load, seconds: 1200, seed: 11 + index, fsyncEvery: 40 })
    t.teardown(() => writer.stop().catch(() => undefined))
    let last = 0
    for (let round = 0; round < 8; round++) {
      await delay(Math.random() * 700)
      const verdict = await movedOn(
        name,
        (image) => stampVerify(image, log),
        ({ ok, n }) => !ok || n !== last,
      )
      t.ok(verdict.ok, JSON.stringify(verdict))
      t.ok(verdict.n > last, `it moves on: ${last} to ${verdict.n}, ${verdict.behind} behind`)
      last = verdict.n
    }
    const before = stampClock(log)
    await flush(source, name)
    const verdict = await atRest(sites, name, (image) => stampVerify(image, log, { requireBefore: before }))
    t.ok(verdict.ok, `flush --wait brings all that was written before it: ${JSON.stringify(verdict)}`)
    const run = await writer.stop()
    t.equal(run.errno, 0)
    await flush(source, name)
    const image = await farPath(sites, name)
    t.match(stampVerify(image, log, { requireAll: true }), { ok: true, behind: 0 })
    t.equal(await difference(device, image), '')
    await source.cli('stream', 'remove', name)
  })
}

/**
 * What the far side shows, at rest, once more epochs were applied and it shows something else. Some epochs have
 * nothing in them, so one more epoch may not be enough. @throws when it stands still for a minute
 */
async function movedOn<T>(name: string, look: (image: string) => T | Promise<T>, isNew: (seen: T) => boolean) {
  const deadline = performance.now() + 60_000
  for (;;) {
    const { appliedEpoch } = await sites.destination.inbound(name)
    await sites.destination.until(
      () => sites.destination.inbound(name),
      (view) => view.appliedEpoch !== appliedEpoch,
    )
    const seen = await atRest(sites, name, look)
    if (isNew(seen)) return seen
    if (performance.now() > deadline) throw new Error(`${name} stands still: ${JSON.stringify(seen)}`)
  }
}

t.test('two volumes of one stream never show different moments', async (t) => {
  const left = await source.volume(folder, 'left', '16MiB')
  const right = await source.volume(folder, 'right', '16MiB')
  await mirror(source, 'pair', ['left', 'right'], '100ms')
  const flags = constants.O_WRONLY | constants.O_DSYNC
  const fds = [openSync(left.device, flags), openSync(right.device, flags)]
  let stop = false
  const counting = (async () => {
    for (let count = 1; !stop; count++) {
      for (const fd of fds) {
        const block = Buffer.alloc(4096)
        block.writeUInt32LE(count)
        writeSync(fd, block, 0, 4096, 0)
      }
      if (count % 4 === 0) await delay(1)
    }
  })()
  t.teardown(async () => {
    stop = true
    await counting.catch(() => undefined)
    for (const fd of fds) closeSync(fd)
  })
  const look = async (): Promise<[left: number, right: number]> => {
    const count = async (name: string) => readFileSync(await farPath(sites, 'pair', name)).readUInt32LE()
    return [await count('left'), await count('right')]
  }
  let last = 0
  for (let round = 0; round < 6; round++) {
    const [a, b] = await movedOn('pair', look, ([a, b]) => a !== last || a < b || a > b + 1)
    t.ok(a === b || a === b + 1, `${a} and ${b}`)
    t.ok(a > last, `and they move on: ${last} to ${a}`)
    last = a
  }
  stop = true
  await counting
})

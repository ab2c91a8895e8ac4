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
  ['four threads, 512 B to 256 KiB', { threads: 4, sizes: '512-262144', rate: 400 }, '150ms'],
]
for (const [index, [title, load, epoch]] of loads.entries()) {
  t.test(`at every epoch boundary the far side is a moment of the source: ${title}`, async (t) => {
    const name = `prefix${index}`
    const log = join(folder, `${name}.log`)
    const { device } = await source.volume(folder, name, '32MiB')
    await mirror(source, name, [name], epoch)
    const writer = startStamp(device, log, { ...load, seconds: 90, seed: 11 + index, fsyncEvery: 40 })
    let last = 0
    for (let round = 0; round < 8; round++) {
      await delay(300 + Math.random() * 700)
      const verdict = await atRest(sites, name, (image) => stampVerify(image, log))
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
  let last = 0
  for (let round = 0; round < 6; round++) {
    await delay(250)
    const [a, b] = await atRest(sites, 'pair', () =>
      Promise.all(
        ['left', 'right'].map(async (name) => readFileSync(await farPath(sites, 'pair', name)).readUInt32LE()),
      ),
    )
    t.ok(a === b || a === b! + 1, `${a} and ${b}`)
    t.ok(a! > last, 'and they move on')
    last = a!
  }
  stop = true
  await counting
  for (const fd of fds) closeSync(fd)
})

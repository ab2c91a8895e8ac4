import { readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ArrivalBuffer } from '../../src/destage/arrival-buffer.js'
import { scratchFolder } from '../fixtures/paths.js'

t.test('a file that cannot be opened to be synced is not durable, one that was dropped needs not be', async (t) => {
  const folder = scratchFolder(t, 'arrival-buffer')
  const arrivals = new ArrivalBuffer(join(folder, 'private'))
  await arrivals.open()
  for (const name of ['a', 'b']) {
    const write = async (to: string): Promise<null> => {
      writeFileSync(to, name)
      return null
    }
    t.equal(await arrivals.take(name, write), null)
  }
  rmSync(arrivals.file('a'))
  // As a disk that gives an error, or a process that has no descriptor left.
  rmSync(arrivals.file('b'))
  symlinkSync('b', arrivals.file('b'))
  await t.rejects(arrivals.settle(), { code: 'ELOOP' })
  await t.rejects(arrivals.settle(), { code: 'ELOOP' }, 'nor the next time')
  rmSync(arrivals.file('b'))
  await arrivals.settle()
})

t.test('of what is set aside the newest are kept, also when the clock was set back meanwhile', async (t) => {
  const folder = scratchFolder(t, 'arrival-buffer')
  const arrivals = new ArrivalBuffer(folder)
  await arrivals.open()
  const put = async (to: string): Promise<boolean> => {
    writeFileSync(to, '')
    return true
  }
  writeFileSync(join(folder, 'refused', 'by-hand'), '')
  writeFileSync(join(folder, 'refused', `${Date.now() + 3_600_000}-future`), '')
  for (let at = 0; at < 30; at++) await arrivals.setAside(`f${at}`, put)
  const names = readdirSync(join(folder, 'refused')).map((name) => name.split('-')[1])
  const newest = Array.from({ length: 20 }, (_, at) => `f${10 + at}`)
  t.same(new Set(names), new Set(newest))
})

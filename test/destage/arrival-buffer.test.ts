import { rmSync, symlinkSync, writeFileSync } from 'node:fs'
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

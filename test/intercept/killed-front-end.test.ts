/** An agent that is killed while the kernel hands it a request: the host's request waits for the next agent. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { KiB, MiB } from '../../src/block/units.js'
import { startFio } from '../fixtures/fio.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { Rig, until } from './rig.js'

const program = fileURLToPath(new URL('killed-agent.js', import.meta.url))
/** Of agents whose buffers had to be brought while they received, about one in five lost a request. */
const killCount = 40
const longestMicroseconds = 3_000
/** Of the 16 buffers of 1 MiB that it has. */
const givenBackBytes = 12 * MiB

const rig = await Rig.open()
const keeperDirectory = rig.file('state')
await mkdir(keeperDirectory)
const words = [keeperDirectory, await rig.backing('backing', 64 * MiB), await rig.mountPoint('mount')]

/** An agent that is killed so long after it began to serve, or stays. */
function begin(microseconds: number): ChildProcessByStdio<null, Readable, null> {
  const child = spawn(process.execPath, [program, ...words, `${microseconds}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const left = { kind: 'process', pid: child.pid! } as const
  remember(left)
  child.once('exit', () => forget(left))
  return child
}

let agent = begin(0)
const [line] = (await once(agent.stdout, 'data')) as [Buffer]
const load = startFio(line.toString().trim(), { rw: 'write', bs: '1m', iodepth: 32, time_based: 1, runtime: 3600 })
let hasEnded = false
load.ended.then(() => {
  hasEnded = true
})
t.teardown(async () => {
  await load.stop()
  agent.kill('SIGKILL')
  await rig.close()
})

t.test('no request fails that was being received when its agent was killed', async (t) => {
  agent.kill('SIGKILL')
  await once(agent, 'exit')
  for (let kill = 1; kill <= killCount; kill++) {
    agent = begin(1 + Math.floor(Math.random() * longestMicroseconds))
    await once(agent, 'exit')
    if (hasEnded) return t.fail(`the host got an error at kill ${kill} of ${killCount}`)
  }
  agent = begin(0)
  await once(agent.stdout, 'data')
  const { errors, writtenBytes, output } = await load.stop()
  t.equal(errors, 0, 'the host has met no error')
  if (errors > 0) t.comment(output.slice(0, 500))
  t.comment(`${Math.round(writtenBytes / MiB)} MiB were written between ${killCount} kills`)
  t.ok(writtenBytes > killCount * MiB)
})

t.test('what requests are received into is given back when no more come', async (t) => {
  const busy = await anonymousBytes(agent.pid!)
  await until(async () => (await anonymousBytes(agent.pid!)) < busy - givenBackBytes)
  t.pass('they are gone')
})

async function anonymousBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1')
  return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)![1]) * KiB
}

/** A keeper that lives and does not answer, or speaks another version: no host gets an error that nobody asked for. */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { VolumeView } from '../../src/api/agent-operations.js'
import { Agent, delay } from '../fixtures/agent.js'
import { keeperPid, keptDevices } from '../fixtures/keeper.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'

/** A keeper ends everything when an agent that it takes for dead has not gone by then. */
const dyingMs = 30_000
const surelyWaitsMs = 1_500
/** Of one message after the other that nobody takes: more than a socket holds. */
const roundLimit = 100
const versionSet = 'TIDEMARK_KEEPER_VERSION'

const folder = scratchFolder(t, 'keeper-still')
const agent = await Agent.start(t, folder)
const { device } = await agent.volume(folder, 'still', '64MiB')
const { device: other } = await agent.volume(folder, 'still-other', '64MiB')
await agent.cli('volume', 'create', 'still-comes', '--path', join(folder, 'comes.img'), '--size', '16MiB')

/** One block: the exit code of who writes it, or null while it waits. */
function write(path: string): { readonly ended: Promise<number>; readonly code: () => number | null } {
  const words = ['if=/dev/zero', `of=${path}`, 'bs=4k', 'count=1', 'oflag=direct', 'conv=notrunc']
  const child = spawn('dd', words, { stdio: 'ignore' })
  const left = { kind: 'process', pid: child.pid! } as const
  remember(left)
  const ended = new Promise<number>((resolve) => {
    child.on('close', (code) => {
      forget(left)
      resolve(code ?? -1)
    })
  })
  return { ended, code: () => child.exitCode }
}

/** The agent is killed, and then its keeper stands still until the test is over, or calls `goOn`. */
async function alone(t: Test): Promise<{ goOn(): void }> {
  await agent.kill()
  return standStill(t)
}

function standStill(t: Test): { pid: number; goOn(): void } {
  const pid = keeperPid(agent)!
  process.kill(pid, 'SIGSTOP')
  const goOn = (): void => {
    if (existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGCONT')
  }
  t.teardown(goOn)
  return { pid, goOn }
}

t.test('a keeper that takes nothing any more is replaced, and ends nothing should it go on', async (t) => {
  const { pid, goOn } = standStill(t)
  const replaced = async (): Promise<boolean> => (await agent.events()).some(({ code }) => code === 'KEEPER_REPLACED')
  for (let round = 0; round < roundLimit && !(await replaced()); round++) {
    await agent.cli('volume', 'attach', 'still-comes')
    await agent.cli('volume', 'detach', 'still-comes')
  }
  await agent.until(replaced, Boolean)
  goOn()
  await delay(dyingMs + 2_000)
  t.equal(await write(device).ended, 0)
  t.not(keeperPid(agent), pid)
  t.match(await keptDevices(agent), { still: 'served', 'still-other': 'served' })
})

t.test('an agent whose keeper stands still does not start without its devices, and the next one goes on', async (t) => {
  const { goOn } = await alone(t)
  const host = write(device)
  await t.rejects(agent.start(), { message: /KEEPER_SILENT|does not answer/ })
  t.match(await agent.run('keeper', 'list'), { code: 1, errorCode: 'KEEPER_FAILED' })
  t.equal(host.code(), null, 'it waits')
  goOn()
  await agent.start()
  t.equal(await host.ended, 0)
  t.match(await agent.get<VolumeView>('volumes', 'still'), { state: 'attached', device })
})

t.test('a host is let go of although the keeper stands still', async (t) => {
  const { goOn } = await alone(t)
  const host = write(device)
  await delay(surelyWaitsMs)
  t.equal(host.code(), null, 'it waits')
  await agent.cli('keeper', 'abort', 'still')
  t.equal(await host.ended, 1)
  t.match(await agent.run('keeper', 'abort', 'still-none'), { code: 1, errorCode: 'NO_SUCH_DEVICE' })
  goOn()
  await agent.start()
  t.match(await agent.get<VolumeView>('volumes', 'still-other'), { state: 'attached', device: other })
})

t.test('an agent of another version leaves what it cannot take over, and says what to do', async (t) => {
  t.teardown(() => {
    delete process.env[versionSet]
  })
  const path = (await agent.get<VolumeView>('volumes', 'still')).device!
  await agent.kill()
  const [host, otherHost] = [write(path), write(other)]
  process.env[versionSet] = '2'
  await t.rejects(agent.start(), { message: /another version/ })
  const listed = await agent.run('keeper', 'list')
  t.match(listed, { code: 1, errorCode: 'KEEPER_FAILED', stderr: /another version/ })
  t.equal(host.code() ?? otherHost.code(), null, 'they wait')
  await agent.cli('keeper', 'abort', 'still')
  t.equal(await host.ended, 1)
  delete process.env[versionSet]
  await agent.start()
  t.equal(await otherHost.ended, 0, 'the version before goes on with the other')

  await agent.kill()
  process.env[versionSet] = '2'
  for (const name of ['still', 'still-other']) await agent.cli('keeper', 'abort', name)
  await agent.start()
  t.match(await keptDevices(agent), { still: 'served', 'still-other': 'served' })
})

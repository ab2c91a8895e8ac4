/** The wall clocks of both sites jump while they replicate: what is sent and applied goes by sequence, and waits by a clock that does not jump. */
import { X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Agent, delay, flush, mirror, pair } from '../fixtures/agent.js'
import { unpackDebianPackage } from '../fixtures/ftp-servers/debian-packages.js'
import { scratchFolder } from '../fixtures/paths.js'
import { difference, farPath } from '../fixtures/sites.js'
import { startStamp } from '../fixtures/stamp.js'

const name = 'clock-jumps'
/** Longer than a certificate is valid. */
const thirtyYearsSeconds = 30 * 365.25 * 86_400
const folder = scratchFolder(t, name)
const { root } = await unpackDebianPackage('libfaketime')

interface Site {
  readonly agent: Agent
  /** For instance +3600 or @1970-01-01 00:10:00. */
  set(clock: string): void
  start(): Promise<void>
}

/** A site whose agent believes what a file says of the time; no clock but the wall clock is turned. */
function siteWithClock(site: string): Site {
  const file = join(folder, `${site}.clock`)
  const library = `usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/faketime/libfaketimeMT.so.1`
  const turned = {
    LD_PRELOAD: join(root, library),
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
  }
  const agent = new Agent(folder, site)
  t.teardown(() => agent.stop())
  const set = (clock: string): void => writeFileSync(file, `${clock}\n`)
  const start = async (): Promise<void> => {
    Object.assign(process.env, turned)
    const started = agent.start()
    delete process.env.LD_PRELOAD
    await started
  }
  set('+0')
  return { agent, set, start }
}

t.test('R17: clocks that jump by hours, or to 1970, on either side lose nothing and hold nothing up', async (t) => {
  const [source, destination] = [siteWithClock('source'), siteWithClock('destination')]
  await Promise.all([source.start(), destination.start()])
  const sites = { folder, source: source.agent, destination: destination.agent }
  await pair(source.agent, destination.agent, { via: 'https' })
  const { device } = await source.agent.volume(folder, name, '32MiB')
  await mirror(source.agent, name, [name])
  const shown: string[] = []
  let seed = 0

  /**
   * Under load, which goes on until `change` has happened: a device that nobody uses may come back as another one. Nothing is
   * sent meanwhile, so that there is a lag to be told.
   */
  const judge = async (what: string, change: () => Promise<void> | void): Promise<void> => {
    const load = { threads: 2, sizes: '512-65536', rate: 300, seconds: 600, fsyncEvery: 50, seed: ++seed }
    const writer = startStamp(device, join(folder, `stamps-${seed}.log`), load)
    await delay(300)
    await source.agent.cli('stream', 'pause', name)
    await delay(2000)
    await change()
    await delay(1500)
    const { oldestUnsentSeconds } = await source.agent.streamStatus(name)
    t.ok(oldestUnsentSeconds > 1 && oldestUnsentSeconds < 60, `${oldestUnsentSeconds} s of lag are told after ${what}`)
    await source.agent.cli('stream', 'resume', name)
    t.equal((await writer.stop()).errno, 0, `hosts see nothing of ${what}`)
    await flush(source.agent, name)
    t.equal(await difference(device, await farPath(sites, name)), '', `equal after ${what}`)
    const status = await source.agent.streamStatus(name)
    t.match(status, { state: 'replicating', generation: 1 })
    shown.push((await destination.agent.inbound(name)).appliedTime ?? '')
  }

  for (const { agent, set } of [source, destination]) {
    for (const clock of ['+3600', '-3600', '@1970-01-01 00:10:00', `+${thirtyYearsSeconds}`, '+0']) {
      await judge(`${clock} at the ${agent === source.agent ? 'source' : 'destination'}`, () => set(clock))
    }
  }
  t.ok(
    shown.some((time) => time.startsWith('1970')),
    `times of the source are shown as it told them: ${shown}`,
  )
  const restart = async ({ agent, start }: Site): Promise<void> => {
    await agent.terminate()
    await start()
  }
  for (const site of [source, destination]) {
    await judge('a restart in 1970', () => {
      site.set('@1970-01-01 00:10:00')
      return restart(site)
    })
  }
  const kept = readFileSync(join(destination.agent.state, 'own/certificate.json'), 'utf8')
  const validTo = Date.parse(new X509Certificate((JSON.parse(kept) as { cert: string }).cert).validTo)
  t.ok(validTo < Date.now() + thirtyYearsSeconds * 1000, 'by the time of the source the certificate has expired')
  // Set before: how old a write of another time is, a restart has only the wall clock to tell by.
  for (const { set } of [source, destination]) set(`+${thirtyYearsSeconds}`)
  for (const site of [source, destination]) await judge('a restart thirty years from now', () => restart(site))
})

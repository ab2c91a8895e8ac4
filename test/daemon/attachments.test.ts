import { lstatSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t from 'tap'
import type { AgentEvent } from '../../src/block/event-log.js'
import { MiB } from '../../src/block/units.js'
import { releaseLeftovers, settleTakenBack } from '../../src/daemon/attachments.js'
import { deviceLink } from '../../src/volume/device-link.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command } from '../fixtures/sites.js'

t.test('of what was taken back and not attached, hosts wait for what is wanted, and the rest is ended', async (t) => {
  const volumes = {
    attached: () => [{ name: 'served' }],
    wanted: () => ['served', 'stuck', 'db@monday'].map((name) => ({ name, readOnly: false })),
  } as unknown as Parameters<typeof settleTakenBack>[1]
  const ended: string[] = []
  const intercept = {
    giveUpKept: async (file: string) => {
      ended.push(file)
      if (file.endsWith('odd')) throw new Error('it stays')
    },
  }
  const told: Pick<AgentEvent, 'code' | 'object'>[] = []
  const files = ['served', 'stuck', 'db@monday', 'odd', 'gone'].map((name) => `/state/run/${name}`)
  await settleTakenBack(files, volumes, intercept, ({ code, object }) => told.push({ code, object }))
  t.same(ended, ['/state/run/odd', '/state/run/gone'])
  t.same(told, [
    { code: 'HOST_WAITS', object: 'stuck' },
    { code: 'HOST_WAITS', object: 'db@monday' },
    { code: 'LEFTOVER_KEPT', object: 'odd' },
  ])
})

t.test('links of what a dead agent left go, unless a volume of their name is behind them', async (t) => {
  const folder = scratchFolder(t, 'attachments')
  const devices = new Map<string, string>()
  for (const name of ['links-live', 'links-else']) {
    writeFileSync(join(folder, name), Buffer.alloc(MiB))
    const device = await command('losetup', '--find', '--show', join(folder, name))
    t.teardown(() => command('losetup', '--detach', device))
    devices.set(name, device)
  }
  const runDirectory = join(folder, 'run')
  mkdirSync(runDirectory)
  mkdirSync(dirname(deviceLink('x')), { recursive: true })
  const left = [
    ['links-live', devices.get('links-live')!],
    // Its number is another's by now.
    ['links-reused', devices.get('links-else')!],
    ['links-gone', '/dev/loop-gone'],
  ] as const
  for (const [name, device] of left) {
    writeFileSync(join(runDirectory, name), '')
    symlinkSync(device, deviceLink(name))
    t.teardown(() => rmSync(deviceLink(name), { force: true }))
  }
  const told: string[] = []
  await releaseLeftovers(runDirectory, { releaseStale: async () => undefined }, ({ text }) => told.push(text))
  const kept = left.map(([name]) => name).filter((name) => lstatSync(deviceLink(name), { throwIfNoEntry: false }))
  t.same(kept, ['links-live'])
  t.same(told, [])
})

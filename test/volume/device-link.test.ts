import { mkdirSync, readdirSync, readlinkSync, rmSync, symlinkSync, watch, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { deviceLink, makeLink } from '../../src/volume/device-link.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command } from '../fixtures/sites.js'

const folder = dirname(deviceLink('x'))
mkdirSync(folder, { recursive: true })

t.test('a link is made, replaces one that leads nowhere, and has no other name on its way', async (t) => {
  const name = 'device-link-one'
  t.teardown(() => rmSync(deviceLink(name), { force: true }))
  const seen = new Set<string>()
  const watcher = watch(folder, (_event, file) => {
    if (file?.startsWith(name)) seen.add(file)
  })
  symlinkSync('/dev/loop-gone', deviceLink(name))
  for (const device of ['/dev/null', '/dev/null', '/dev/zero']) {
    t.equal(await makeLink(name, device), deviceLink(name))
    t.equal(readlinkSync(deviceLink(name)), device)
  }
  await new Promise((resolve) => setTimeout(resolve, 100))
  watcher.close()
  t.same([...seen], [name])
})

t.test(
  'of two agents that attach one name at the same moment, the one whose volume is served has the link',
  async (t) => {
    const name = 'device-link-two'
    const scratch = scratchFolder(t, 'device-link')
    writeFileSync(join(scratch, name), Buffer.alloc(MiB))
    const device = await command('losetup', '--find', '--show', join(scratch, name))
    t.teardown(() => command('losetup', '--detach', device))
    t.teardown(() => rmSync(deviceLink(name), { force: true }))
    for (let round = 0; round < 50; round++) {
      rmSync(deviceLink(name), { force: true })
      const [own, other] = await Promise.allSettled([makeLink(name, device), makeLink(name, '/dev/null')])
      t.equal(readlinkSync(deviceLink(name)), device)
      if (other.status === 'rejected') t.match(other.reason, { code: 'LINK_TAKEN' })
      if (own.status === 'rejected') t.fail(String(own.reason))
    }
    t.same(
      readdirSync(folder).filter((link) => link.startsWith(basename(name))),
      [name],
    )
  },
)

/** What both do that touch an inbox: the agent's own process, and the one that an inbox has which may hang. */
import { randomBytes } from 'node:crypto'
import {
  chownSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Inbox, type InboxCalls, VANISHED } from '../../src/destage/inbox.js'
import { listInbox } from '../../src/destage/inbox-listing.js'
import { InboxProcess } from '../../src/destage/inbox-process.js'
import { mountFreezableDisk } from '../fixtures/freezable-disk.js'
import { forget, remember } from '../fixtures/leftovers.js'
import { scratchFolder } from '../fixtures/paths.js'
import { command } from '../fixtures/sites.js'
import { mountSmallDisk } from '../fixtures/small-disk.js'

type Opened = (directory: string, onChange: (streamId: string | null) => void) => InboxCalls

const id = 'ab'.repeat(16)
const listLarge = async (folder: string) => (await listInbox(folder))!
const part = (epoch: number): string => `g00000001-e${String(epoch).padStart(16, '0')}-p0000001-of-0000001.tmr`

for (const [title, open] of [
  ['own', (directory, onChange) => new Inbox(directory, onChange)],
  ['process', (directory, onChange) => new InboxProcess(directory, onChange)],
] as [string, Opened][]) {
  function opened(t: Test) {
    const folder = scratchFolder(t, 'inbox')
    const directory = join(folder, 'inbox')
    const streamFolder = join(directory, id)
    mkdirSync(streamFolder, { recursive: true })
    const hints: (string | null)[] = []
    const inbox = open(directory, (streamId) => hints.push(streamId))
    t.teardown(() => inbox.close())
    const deliver = (name: string, bytes: string | Buffer = name): string => {
      writeFileSync(join(streamFolder, name), bytes)
      return join(streamFolder, name)
    }
    return { folder, directory, streamFolder, hints, inbox, deliver, place: join(folder, 'taken') }
  }

  t.test(`${title}: folders of streams and what lies there are listed, and what comes is told`, async (t) => {
    const { directory, hints, inbox, deliver, folder } = opened(t)
    mkdirSync(join(directory, 'holiday'))
    symlinkSync(folder, join(directory, 'cd'.repeat(16)))
    t.same(await inbox.streams(), [id])
    for (let epoch = 300; epoch > 0; epoch--) deliver(part(epoch))
    deliver('holiday.jpg')
    const { parts, others } = await inbox.names(id, listLarge)
    t.equal(parts.length, 300)
    t.equal(parts[0], part(1))
    t.same(others, ['holiday.jpg'])
    t.same(await inbox.names('cd'.repeat(16), listLarge), { parts: [], others: [] }, 'a link is no folder')
    const before = hints.length
    deliver(part(301))
    while (!hints.slice(before).includes(id)) await new Promise((resolve) => setTimeout(resolve, 10))
    mkdirSync(join(directory, 'ef'.repeat(16)))
    while (!hints.includes(null)) await new Promise((resolve) => setTimeout(resolve, 10))
  })

  t.test(`${title}: a file is taken once, on another disk too; what can be no part stays where it is`, async (t) => {
    const { directory, streamFolder, inbox, deliver, place } = opened(t)
    const disk = await mountSmallDisk(8 << 20)
    t.teardown(() => disk.unmount())
    for (const to of [place, join(disk.directory, 'taken')]) {
      const content = randomBytes(3 << 20)
      deliver(part(1), content)
      t.equal(await inbox.take(id, part(1), to), null)
      t.ok(readFileSync(to).equals(content))
      t.equal(await inbox.take(id, part(1), to), VANISHED)
      t.ok(readFileSync(to).equals(content))
      rmSync(to)
      symlinkSync('/etc/passwd', join(streamFolder, part(2)))
      mkdirSync(join(streamFolder, part(3)))
      linkSync(deliver(part(4)), join(directory, 'second'))
      truncateSync(deliver(part(5)), 4 * 2 ** 30)
      for (const epoch of [2, 3, 4, 5]) {
        t.match(await inbox.take(id, part(epoch), to), /regular|names|bytes/)
        t.match(await inbox.remove(id, part(epoch)), /regular|names|bytes/)
        t.equal(existsSync(to), false)
      }
      t.equal(readdirSync(streamFolder).length, 4)
      for (const name of readdirSync(streamFolder)) rmSync(join(streamFolder, name), { recursive: true })
      rmSync(join(directory, 'second'))
    }
    const file = deliver(part(6))
    t.equal(await inbox.remove(id, part(6)), null)
    t.equal(existsSync(file), false)
    mkdirSync(join(streamFolder, part(7)))
    t.equal(await inbox.putAside(id, part(7), place), true)
    t.ok(statSync(place).isDirectory())
    t.equal(await inbox.putAside(id, part(7), place), false)
  })

  t.test(`${title}: an acknowledgement is whole, and its folder’s owner’s`, async (t) => {
    const { streamFolder, inbox } = opened(t)
    chownSync(streamFolder, 12, 34)
    mkdirSync(join(streamFolder, 'acknowledgement'))
    for (const text of ['first', 'second']) {
      t.equal(await inbox.acknowledge(id, Buffer.from(text)), true)
      t.equal(readFileSync(join(streamFolder, 'acknowledgement'), 'utf8'), text)
    }
    t.match(statSync(join(streamFolder, 'acknowledgement')), { uid: 12, gid: 34 })
    t.equal(readdirSync(streamFolder).length, 2, 'and the folder that was in the way')
    t.equal(await inbox.acknowledge('cd'.repeat(16), Buffer.from('lost')), false)
  })

  t.test(`${title}: a link that takes the place of the folder after a look leads nowhere`, async (t) => {
    const { folder, streamFolder, inbox, deliver, place } = opened(t)
    const mine = join(folder, 'mine')
    mkdirSync(mine)
    writeFileSync(join(mine, part(1)), 'mine')
    deliver(part(1))
    t.same((await inbox.names(id, listLarge)).parts, [part(1)])
    renameSync(streamFolder, join(folder, 'moved'))
    symlinkSync(mine, streamFolder)
    t.equal(await inbox.take(id, part(1), place), VANISHED)
    t.equal(await inbox.remove(id, part(1)), VANISHED)
    t.equal(await inbox.putAside(id, part(1), place), false)
    t.equal(await inbox.acknowledge(id, Buffer.from('astray')), false)
    t.same(readdirSync(mine), [part(1)])
    t.equal(existsSync(place), false)
  })
}

t.test('an inbox that hangs fails every call within its time, works again later, and can be closed', async (t) => {
  const scratch = scratchFolder(t, 'inbox-hangs')
  const disk = await mountFreezableDisk(scratch, 64 << 20)
  const mount = { kind: 'mount', path: disk.directory } as const
  remember(mount)
  const hints: (string | null)[] = []
  const inbox = new InboxProcess(disk.directory, (streamId) => hints.push(streamId), { silenceMs: 5_000 })
  t.teardown(async () => {
    await disk.thaw()
    inbox.close()
    await command('umount', '-l', disk.directory)
    forget(mount)
  })
  mkdirSync(join(disk.directory, id))
  const acknowledge = (text: string): Promise<boolean> => inbox.acknowledge(id, Buffer.from(text))
  const hung = { code: 'INBOX_UNAVAILABLE', retry: 'later' }
  t.equal(await acknowledge('before'), true)
  await disk.freeze()
  await t.rejects(acknowledge('meanwhile'), hung)
  const from = performance.now()
  await t.rejects(inbox.names(id), hung, 'at once: there is no second process')
  t.ok(performance.now() - from < 1_000)
  await disk.thaw()
  for (;;) {
    const works = await acknowledge('after').catch((error) => !t.match(error, hung))
    if (works) break
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  t.equal(readFileSync(join(disk.directory, id, 'acknowledgement'), 'utf8'), 'after')
  await inbox.names(id)
  hints.length = 0
  writeFileSync(join(disk.directory, id, 'holiday.jpg'), '')
  while (!hints.includes(id)) await new Promise((resolve) => setTimeout(resolve, 10))
  await disk.freeze()
  const waits = t.rejects(acknowledge('at the end'), hung)
  await new Promise((resolve) => setTimeout(resolve, 500))
  inbox.close()
  await waits
  await t.rejects(inbox.streams(), hung)
})

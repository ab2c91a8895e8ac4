import { existsSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { StorageError } from '../../src/block/storage-error.js'
import { volumeIndex } from '../../src/block/units.js'
import type { Intercept, NativeJournal, NativeVolume } from '../../src/intercept/addon.js'
import { deviceLink } from '../../src/volume/device-link.js'
import { FrontEnd, type OpenedVolume } from '../../src/volume/front-end.js'
import { scratchFolder } from '../fixtures/paths.js'

const journal = {} as NativeJournal

/** A volume whose native side notes what it is asked, and fails where it is told to. */
class NotedVolume extends FrontEnd {
  readonly kind = 'thin'
  readonly sizeBytes = 4096
  readOnly = false
  readonly calls: string[] = []
  failing = ''
  checkFails = false
  onLost = (_message: string): void => {}

  constructor(
    readonly name: string,
    readonly folder: string,
    protected readonly servesFile: boolean,
  ) {
    const intercept = {
      releaseStale: async () => this.#note('releaseStale'),
    } as unknown as Intercept
    super({ intercept, runDirectory: folder, threads: 1, onLost: () => this.calls.push('told lost') })
  }

  get path(): string {
    return this.mountPoint
  }

  /** What was called since this was asked last. */
  get since(): string[] {
    return this.calls.splice(0)
  }

  protected async open(readOnly: boolean): Promise<OpenedVolume> {
    this.#note(readOnly ? 'open read-only' : 'open')
    this.onLost = (message) => this.noteLost(message)
    const native = {
      logicalBlockBytes: 512,
      attach: async (_mountPoint: string, options?: { readOnly?: boolean }) => {
        this.#note(options?.readOnly ? 'attach read-only' : 'attach')
        return { device: '/dev/null' }
      },
      detach: async () => this.#note('detach'),
      serve: async () => this.#note('serve'),
      unserve: async () => this.#note('unserve'),
      setJournal: async (given: NativeJournal | null) => this.#note(given ? 'record' : 'record no more'),
      syncBacking: async () => this.#note('sync'),
    } as unknown as NativeVolume
    return { native, close: async () => this.#note('close') }
  }

  override checkUsable(): void {
    if (this.checkFails) throw new StorageError('IMAGE_INCOMPLETE', { op: 'x', object: this.name, hint: 'wait' })
  }

  #note(call: string): void {
    this.calls.push(call)
    if (call === this.failing) throw new StorageError('DEVICE_BUSY', { op: call, object: this.name, hint: 'no' })
  }
}

let count = 0
function volume(t: Test, servesFile = true): NotedVolume {
  const made = new NotedVolume(`front-end-${process.pid}-${++count}`, scratchFolder(t, 'front-end'), servesFile)
  t.teardown(async () => {
    made.failing = ''
    await made.detach()
  })
  return made
}

t.test(
  'a volume with a served file is open while it is held or attached; the file is there while it is held',
  async (t) => {
    const v = volume(t)
    await v.hold()
    t.same(v.since, ['open', 'releaseStale', 'serve'], 'what may be at the mount point is not its business yet')
    await v.hold()
    t.equal(await v.attach(), '/dev/null')
    t.same(v.since, ['releaseStale', 'attach'])
    t.equal(readlinkSync(deviceLink(v.name)), '/dev/null')
    await v.release()
    await v.detach()
    t.same(v.since, ['detach', 'sync'], 'detached is durable, although it stays open')
    t.notOk(existsSync(deviceLink(v.name)))
    t.equal(v.link, null)
    await v.release()
    t.same(v.since, ['unserve', 'sync', 'close'])
    t.notOk(existsSync(join(v.folder, v.name)), 'no mount point is left')
    await v.attach()
    t.same(v.since, ['releaseStale', 'open', 'attach'])
    await v.detach()
    t.same(v.since, ['detach', 'sync', 'close'])
  },
)

t.test('a volume with a backing is open while it is attached alone', async (t) => {
  const v = volume(t, false)
  await v.hold()
  t.same(v.since, [])
  await v.attach({ readOnly: true })
  t.same(v.since, ['releaseStale', 'open read-only', 'attach read-only'])
  await v.release()
  t.same(v.since, [])
  await v.detach()
  t.same(v.since, ['detach', 'sync', 'close'])
})

t.test('attached once more it is what it was, or refused', async (t) => {
  const v = volume(t)
  await v.attach({ readOnly: true })
  t.ok(v.attachedReadOnly)
  t.equal(await v.attach(), '/dev/null')
  t.equal(await v.attach({ readOnly: true }), '/dev/null')
  await t.rejects(v.attach({ readOnly: false }), { code: 'ATTACHED_OTHERWISE' })
  await v.detach()
  v.readOnly = true
  v.calls.splice(0)
  await v.attach()
  t.same(v.since, ['releaseStale', 'open read-only', 'attach read-only'])
})

t.test('a journal that was set records from the first moment it is open, whenever that is', async (t) => {
  const v = volume(t)
  await v.setJournal(journal, volumeIndex(3))
  t.same(v.since, [])
  await v.attach()
  t.same(v.since, ['releaseStale', 'open', 'record', 'attach'])
  await v.hold()
  await v.detach()
  await v.setJournal(null)
  t.same(v.since, ['releaseStale', 'serve', 'detach', 'sync', 'record no more'])
  await v.setJournal(journal)
  await v.release()
  t.same(v.since, ['record', 'unserve', 'sync', 'record no more', 'close'])
})

t.test('what fails leaves it as it was, and nothing open that nobody needs', async (t) => {
  const v = volume(t)
  v.failing = 'serve'
  await t.rejects(v.hold(), { code: 'DEVICE_BUSY' })
  t.same(v.since, ['open', 'releaseStale', 'serve', 'sync', 'close'])
  v.failing = 'attach'
  await t.rejects(v.attach(), { code: 'DEVICE_BUSY' })
  t.same(v.since, ['releaseStale', 'open', 'attach', 'sync', 'close'])
  v.failing = ''
  v.checkFails = true
  await t.rejects(v.attach(), { code: 'IMAGE_INCOMPLETE' })
  t.same(v.since, [])
  v.checkFails = false
  await v.attach()
  v.failing = 'detach'
  await t.rejects(v.detach(), { code: 'DEVICE_BUSY' })
  t.equal(v.device, '/dev/null', 'still attached')
  v.failing = ''
  await v.detach()
  t.equal(v.device, null)
})

t.test('a sync that failed once is told for good, to whoever asks for one', async (t) => {
  const v = volume(t)
  await v.attach()
  v.failing = 'sync'
  await t.rejects(v.detach(), { code: 'DEVICE_BUSY' })
  t.equal(v.device, null, 'detached all the same')
  v.failing = ''
  await v.hold()
  await t.rejects(v.syncBacking(), { code: 'DEVICE_BUSY' })
  await v.release()
})

t.test('one that was lost is opened anew for the next that needs it', async (t) => {
  const v = volume(t)
  await v.hold()
  await v.attach()
  v.calls.splice(0)
  v.onLost('unmounted')
  t.same(v.since, ['told lost'])
  t.equal(v.lost, 'unmounted')
  await v.attach()
  t.same(v.since, ['detach', 'unserve', 'sync', 'close', 'releaseStale', 'open', 'releaseStale', 'serve', 'attach'])
  t.equal(v.lost, undefined)
  await v.detach()
  v.onLost('again')
  v.calls.splice(0)
  await v.hold()
  t.same(v.since, ['unserve', 'sync', 'close', 'open', 'releaseStale', 'serve'])
  await v.release()
  await v.release()
})

t.test('a mount point that lies there already is used', async (t) => {
  const v = volume(t)
  writeFileSync(join(v.folder, v.name), '')
  t.equal(await v.attach(), '/dev/null')
  await v.detach()
  t.notOk(existsSync(join(v.folder, v.name)))
})

import t from 'tap'
import type { Intercept, NativeVolume } from '../../src/intercept/addon.js'
import type { OpenThinVolume, ThinPool } from '../../src/pool/thin-pool.js'
import { ThinSnapshot } from '../../src/volume/thin-snapshot.js'
import { scratchFolder } from '../fixtures/paths.js'

t.test('a snapshot that is attached the other way after its device was lost is sound', async (t) => {
  const calls: string[] = []
  let lose = (_message: string): void => {}
  const open: ThinPool['open'] = async (_volume, _snapshot, { readOnly, onLost }) => {
    const way = readOnly ? 'read-only' : 'read-write'
    if (readOnly) lose = onLost
    const native = {
      attach: async () => {
        calls.push(`attach ${way}`)
        return { device: '/dev/null', kept: true }
      },
      detach: async () => calls.push(`detach ${way}`),
      serve: async () => {},
      unserve: async () => {},
      syncBacking: async () => {},
      logicalBlockBytes: 512,
    } as unknown as NativeVolume
    return { native, nextMapped: () => undefined, close: async () => {} } satisfies OpenThinVolume
  }
  const intercept = { releaseStale: async () => {} } as unknown as Intercept
  const options = { intercept, runDirectory: scratchFolder(t, 'thin-snapshot'), threads: 1, onLost: () => {} }
  const snapshot = new ThinSnapshot({ open } as unknown as ThinPool, `thin-snapshot-${process.pid}`, 'one', options)
  await snapshot.hold()
  await snapshot.attach({ readOnly: true })
  lose('unmounted')
  t.equal(snapshot.lost, 'unmounted')
  await snapshot.attach({ readOnly: false })
  t.equal(snapshot.lost, undefined, 'what was lost is another device, which is gone')
  await t.rejects(snapshot.attach({ readOnly: true }), { code: 'ATTACHED_OTHERWISE' })
  t.same(calls, ['attach read-only', 'detach read-only', 'attach read-write'], 'its host keeps it')
  await snapshot.detach()
  await snapshot.release()
})

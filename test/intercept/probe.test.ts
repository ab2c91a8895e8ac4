import t from 'tap'
import { MiB } from '../../src/block/units.js'
import { probe } from '../../src/intercept/probe.js'
import { Rig, run } from './rig.js'

t.test('a probe names what would be lost', async (t) => {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const blank = await rig.backing('blank', 16 * MiB)
  t.equal(await probe(blank), undefined)

  const tree = await rig.backing('tree', 32 * MiB)
  await run('mkfs.ext4', '-q', '-L', 'home', tree)
  t.match(await probe(tree), { type: 'ext4', label: 'home', uuid: /^[0-9a-f-]{36}$/, description: /ext4.*home/ })

  const disk = await rig.backing('disk', 16 * MiB)
  await run('bash', '-c', `echo 'label: gpt' | sfdisk --quiet ${disk}`)
  t.match(await probe(disk), { partitionTable: 'gpt' })

  const raw = await run('losetup', '--find', '--show', tree)
  t.match(await probe(raw), { type: 'ext4' })
  await run('losetup', '--detach', raw)
})

t.test('what cannot be read is no blank device', async (t) => {
  await t.rejects(probe('/nonexistent'), { code: 'PROBE_FAILED' })
})

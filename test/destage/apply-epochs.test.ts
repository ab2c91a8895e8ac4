import t from 'tap'
import { MiB } from '../../src/block/units.js'
import type { WorkerCalls } from '../../src/block/worker-calls.js'
import { applyEpochs } from '../../src/destage/apply-epochs.js'
import type { ApplyJob } from '../../src/destage/destage-job.js'

const job = {
  secret: Buffer.alloc(32),
  pairingId: Buffer.alloc(16),
  streamId: Buffer.alloc(16),
  generation: 1,
  firstEpoch: 5,
  previousTag: Buffer.from('0'),
  images: [],
}

/** Answers with the last file's name as the tag, and notes what it was asked. */
function fakeWorker(calls: string[], failAt?: string): WorkerCalls {
  const call = async (method: string, { firstEpoch, epochs, previousTag }: ApplyJob) => {
    const text = `${method} ${firstEpoch}: ${epochs.map((files) => files.join('+')).join(',')} after ${Buffer.from(previousTag)}`
    calls.push(text)
    if (text.startsWith(failAt ?? '-')) throw new Error('never')
    const tag = Buffer.from(epochs.at(-1)!.at(-1)!)
    return method === 'check' ? tag : { tag, endLsn: BigInt(firstEpoch), lastTimeNs: 0n, writtenBytes: 10 }
  }
  return { call } as unknown as WorkerCalls
}

const epoch = (name: string, mebibytes: number) => ({ files: [name], rawBytes: mebibytes * MiB })

t.test('what fits the memory is one call', async (t) => {
  const calls: string[] = []
  const result = await applyEpochs(fakeWorker(calls), job, [epoch('a', 30), epoch('b', 30)])
  t.same(calls, ['apply 5: a,b after 0'])
  t.match(result, { endLsn: 5n, writtenBytes: 10 })
})

t.test('what is more is checked to its end before the first byte is written', async (t) => {
  const calls: string[] = []
  const epochs = [epoch('a', 40), epoch('b', 30), epoch('c', 34), epoch('d', 90)]
  const result = await applyEpochs(fakeWorker(calls), job, epochs)
  t.same(calls, [
    'check 5: a after 0',
    'check 6: b,c after a',
    'check 8: d after c',
    'apply 5: a after 0',
    'apply 6: b,c after a',
    'apply 8: d after c',
  ])
  t.match(result, { endLsn: 8n, writtenBytes: 30 })
  const failing: string[] = []
  await t.rejects(applyEpochs(fakeWorker(failing, 'check 8'), job, epochs))
  t.notOk(failing.some((call) => call.startsWith('apply')))
})

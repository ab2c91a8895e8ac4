import type { WorkerCalls } from '../block/worker-calls.js'
import type { ApplyJob, ApplyResult } from './destage-job.js'

/** Opened in memory at once, as it is before it was compressed. */
const pieceBytes = 64 * 1024 * 1024

/** A whole epoch: its files in order of parts. */
export interface EpochFiles {
  readonly files: readonly string[]
  readonly rawBytes: number
}

/**
 * Apply whole epochs in order. What does not fit the memory at once is checked to its end first and applied in pieces
 * then: nothing is written of epochs that can never be applied.
 *
 * @throws StorageError of the worker; with `retry` never: nothing was written
 */
export async function applyEpochs(
  worker: WorkerCalls,
  job: Omit<ApplyJob, 'epochs'>,
  epochs: readonly EpochFiles[],
): Promise<ApplyResult> {
  const pieces = splitPieces(job.firstEpoch, epochs)
  if (pieces.length > 1) {
    let { previousTag } = job
    for (const piece of pieces) {
      previousTag = await worker.call<Uint8Array>('check', { ...job, ...piece, previousTag } satisfies ApplyJob)
    }
  }
  let { previousTag } = job
  let writtenBytes = 0
  let result: ApplyResult | undefined
  for (const piece of pieces) {
    result = await worker.call<ApplyResult>('apply', { ...job, ...piece, previousTag } satisfies ApplyJob)
    previousTag = result.tag
    writtenBytes += result.writtenBytes
  }
  return { ...result!, writtenBytes }
}

type Piece = Pick<ApplyJob, 'firstEpoch' | 'epochs'>

function splitPieces(firstEpoch: number, epochs: readonly EpochFiles[]): Piece[] {
  const pieces: { firstEpoch: number; epochs: (readonly string[])[] }[] = []
  let room = 0
  epochs.forEach(({ files, rawBytes }, at) => {
    if (pieces.length === 0 || rawBytes > room) {
      pieces.push({ firstEpoch: firstEpoch + at, epochs: [] })
      room = pieceBytes
    }
    pieces.at(-1)!.epochs.push(files)
    room -= rawBytes
  })
  return pieces
}

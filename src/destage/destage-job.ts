import type { Comparison } from '../replication-file/acknowledgement.js'

/** What main thread and destage worker tell each other, as plain data. */

export interface VerifyJob {
  readonly file: string
  readonly secret: Uint8Array
  readonly pairingId: Uint8Array
  readonly streamId: Uint8Array
}

export interface Declaration {
  readonly index: number
  readonly stream: string
  readonly name: string
  readonly sizeBytes: number
}

export interface VerifyResult {
  readonly generation: number
  readonly epoch: number
  readonly part: number
  readonly partCount: number
  readonly initializing: boolean
  readonly rawBytes: number
  readonly hasDigests: boolean
  readonly declarations: readonly Declaration[]
}

export interface ApplyJob extends Omit<VerifyJob, 'file'> {
  readonly generation: number
  /** Whole epochs, in order, the first one being `firstEpoch`; each as its files in order of parts. */
  readonly firstEpoch: number
  readonly epochs: readonly (readonly string[])[]
  /** Of the last part that was applied. */
  readonly previousTag: Uint8Array
  readonly images: readonly ImageJob[]
}

export interface ImageJob {
  readonly index: number
  readonly path: string
  readonly sizeBytes: number
  /** What its bytes lie on in the end. */
  readonly disks: readonly string[]
}

export interface ApplyResult {
  /** Of the last part applied. */
  readonly tag: Uint8Array
  readonly endLsn: bigint
  readonly lastTimeNs: bigint
  readonly writtenBytes: number
  /** Of the digests in these epochs, when there were any; its list has no limit. */
  readonly compared: Comparison | null
}

import type { FioTarget } from '../fio.js'
import type { Mode } from '../results.js'
import type { Workload } from '../workloads.js'

/** Where a row keeps what it makes, and how. */
export interface RowSetting {
  /** Empty, its own, removed by whoever gave it. */
  readonly folder: string
  readonly mode: Mode
  readonly volumeBytes: number
}

/** A row ready to be measured: a device or server over a volume of `volumeBytes`. */
export interface OpenRow {
  readonly target: FioTarget
  /** Resolves when nothing a run began goes on in the background. */
  settle?(): Promise<void>
  /** The volume is full of data already: it need not be written once. */
  readonly filled?: boolean
  /** After the volume was written once: what was not to take part in that. */
  begin?(): Promise<void>
  /** A fresh snapshot in place of the one before. May replace what serves the target, not the target. */
  snapshot?(): Promise<void>
  /** Nothing is left of it but files in its folder. */
  close(): Promise<void>
}

export interface Row {
  /** Stands in results and options. */
  readonly id: string
  readonly title: string
  readonly group: 'limit' | 'tidemark' | 'peer'
  readonly modes: readonly Mode[]
  /** Part of `--quick`. */
  readonly quick: boolean
  /** What tools/install-packages installs for it, COMMAND:PACKAGE. */
  readonly packages?: readonly string[]
  /** Of no use in a build without thin pools. */
  readonly needsPools?: boolean
  takes(workload: Workload): boolean
  /** Most it ever has on the disk, bytes. */
  diskBytes(volumeBytes: number): number
  /** @throws NotAvailable when this build or machine has no such thing */
  open(setting: RowSetting): Promise<OpenRow>
}

/** Every workload that needs no snapshot. */
export const takesAnyVolume = (workload: Workload): boolean => workload.afterSnapshot !== true

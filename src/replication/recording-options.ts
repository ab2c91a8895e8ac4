import type { StateStore } from '../block/state-store.js'
import type { StreamJournalOptions } from '../journal/stream-journal.js'
import type { Transport } from '../transport/transport.js'
import type { EpochHold } from './epoch-hold.js'
import type { Packer } from './pack-workers.js'
import type { RecordedVolumes } from './recorded-volumes.js'
import type { RegionOptions } from './region-keeper.js'
import type { SourceBuffer } from './source-buffer.js'
import type { PoolHolders, StreamDefinition, StreamState } from './stream-state.js'
import type { StrictOptions } from './strict-policy.js'

/** What the recording of one stream is made of. */
export interface StreamRecordingOptions extends StrictOptions {
  readonly definition: StreamDefinition
  readonly volumes: RecordedVolumes
  /** Of the pools the volumes are in now. */
  readonly holders: () => PoolHolders
  readonly pairingId: Buffer
  readonly secret: Buffer
  readonly store: StateStore
  readonly state: StreamState
  readonly journal: Omit<StreamJournalOptions, 'stream' | 'state' | 'onEvent'>
  readonly regions: RegionOptions
  readonly buffer: SourceBuffer
  readonly bufferLimitBytes: number
  readonly transport: Transport
  readonly packer: Packer
  readonly hold: EpochHold
  readonly paused: () => boolean
}

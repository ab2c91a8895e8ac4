import { Changes } from '../block/changes.js'
import { Pause } from '../block/pause.js'
import { StorageError } from '../block/storage-error.js'
import {
  ACKNOWLEDGEMENT_LIMIT,
  ACKNOWLEDGEMENT_NAME,
  type Acknowledgement,
  type Comparison,
  openAcknowledgement,
} from '../replication-file/acknowledgement.js'
import type { Transport } from '../transport/transport.js'
import { isGathering, type StreamPosition, type StreamState } from './stream-state.js'
import { hearComparison } from './verify-state.js'

const busyPollMs = 50
const slowPollMs = 1000
/** What was sent wakes it. */
const idlePollMs = 5_000
/** No progress for so long although all was sent: look whether the files are still there. */
const stallMs = 20_000
/** No progress for so long: what is said to be there is not believed to be, and sent again; ever more rarely. */
const firstDoubtMs = 4 * stallMs
const lastDoubtMs = 3_600_000

export interface AcknowledgementReaderOptions {
  readonly folder: string
  readonly secret: Buffer
  readonly state: StreamState
  readonly transport: Transport
  /** What it found of the digests it was sent, whenever that has grown; after it was recorded. */
  readonly onComparison: (now: Comparison, before: Comparison | null) => void
  /** The destination has applied more; called after it was recorded. */
  readonly onApplied: () => Promise<void>
  /**
   * What is released before it is applied: it waits at the destination for the end of a catch-up. Also called with what
   * was told before. @returns whether anything was released
   */
  readonly onReceived: (epoch: number) => Promise<boolean>
  readonly onReport: (state: string, reason: string) => void
  /** It asks for an epoch again that was released when it said that it had received it. */
  readonly onLostThere: (epoch: number) => void
  /** It has what this source has never sent. Called again as long as it says so; nothing that it says is believed then. */
  readonly onOvertaken: (generation: number) => void
  readonly onWanted: (places: readonly { readonly epoch: number; readonly part: number }[]) => void
  /** Why acknowledgements cannot be read; null: they can. */
  readonly onLink: (error: StorageError | null) => void
  readonly onBadSeal: (error: StorageError) => void
  /** A clock that never jumps, milliseconds. */
  readonly now?: () => number
}

/** Learns from the destination what was applied and what it wants again. */
export class AcknowledgementReader {
  readonly pause = new Pause()
  readonly #options: AcknowledgementReaderOptions
  readonly #looked = new Changes()
  #looks = 0
  #asked = false
  /** What it says now may pass for true when more epochs were cut. */
  #isOvertaken = false
  #delayMs = busyPollMs
  readonly #now: () => number
  #lookForLostAtMs = 0
  /** What the destination last said to have, whole and waiting to be applied. */
  #received = { generation: 0, epoch: 0 }
  #doubtMs = firstDoubtMs
  #doubtAtMs = 0

  constructor(options: AcknowledgementReaderOptions) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
    this.#noteProgress()
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        if (this.#asked || this.#outstanding()) await this.#look(signal)
        else this.#noteProgress()
        this.#options.onLink(null)
      } catch (error) {
        if (signal.aborted) return
        if (!(error instanceof StorageError)) throw error
        this.#options.onLink(error)
        this.#delayMs = slowPollMs
      }
      await this.pause.wait(this.#outstanding() ? this.#delayMs : idlePollMs, signal)
    }
  }

  /** Look once, whether anything is expected or not. Resolves to false when that takes longer, or cannot be done. */
  ask(timeoutMs: number): Promise<boolean> {
    const before = this.#looks
    this.#asked = true
    this.pause.wake()
    return this.#looked.until(() => this.#looks > before, timeoutMs)
  }

  /** Something was sent: ask soon. */
  expect(): void {
    this.#delayMs = busyPollMs
    this.pause.wake()
  }

  #outstanding(): boolean {
    const { sentEpoch, appliedEpoch, phase } = this.#options.state.position
    return phase !== 'new' && sentEpoch > appliedEpoch
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { transport, folder } = this.#options
    const bytes = await transport.read(folder, ACKNOWLEDGEMENT_NAME, ACKNOWLEDGEMENT_LIMIT, signal)
    const value = bytes && this.#open(bytes)
    const moved = value ? await this.#take(value) : false
    this.#asked = false
    this.#looks += 1
    this.#looked.announce()
    this.#delayMs = moved ? busyPollMs : Math.min(this.#delayMs * 1.5, slowPollMs)
    if (moved) this.#noteProgress()
    else if (this.#now() > this.#lookForLostAtMs) await this.#lookForLost(signal)
  }

  #noteProgress(): void {
    this.#lookForLostAtMs = this.#now() + stallMs
    this.#doubtMs = firstDoubtMs
    this.#doubtAtMs = this.#now() + firstDoubtMs
  }

  #open(bytes: Buffer): Acknowledgement | undefined {
    const { secret, folder, onBadSeal } = this.#options
    try {
      return openAcknowledgement(bytes, secret, Buffer.from(folder, 'hex'))
    } catch (error) {
      if (!(error instanceof StorageError)) throw error
      onBadSeal(error)
      return undefined
    }
  }

  async #take(value: Acknowledgement): Promise<boolean> {
    const { state, onReceived, onOvertaken } = this.#options
    const { position } = state
    this.#isOvertaken ||= hasOvertaken(value, position)
    if (this.#isOvertaken) {
      onOvertaken(value.generation)
      return false
    }
    if (value.generation !== position.generation || value.sequence < position.acknowledgement) return false
    const farReads = value.reads ?? 1
    if (farReads !== position.farReads) await state.move({ farReads })
    const moved = value.sequence > position.acknowledgement && (await this.#note(value))
    const received = Math.min(value.receivedEpoch ?? 0, state.position.sentEpoch)
    this.#received = { generation: value.generation, epoch: received }
    if (received <= state.position.appliedEpoch || !isGathering(state.position)) return moved
    // Not only of a new one: a crash may have come between that and the release.
    return (await onReceived(received)) || moved
  }

  /** @returns whether more was applied */
  async #note(value: Acknowledgement): Promise<boolean> {
    const { state, onApplied, onReport, onWanted, onComparison } = this.#options
    const { position } = state
    onReport(value.state, value.reason)
    const lost = this.#lostThere(value)
    if (lost !== undefined) this.#options.onLostThere(lost)
    if (value.wanted.length > 0) onWanted(value.wanted)
    const moved = value.appliedEpoch > position.appliedEpoch && value.appliedEpoch <= position.cutEpoch
    const before = position.verify
    await state.move(({ sentEpoch, cutLsn, verify }) => ({
      acknowledgement: value.sequence,
      verify: hearComparison(verify, value.comparison ?? null),
      ...(moved && {
        appliedEpoch: value.appliedEpoch,
        appliedLsn: earlier(value.appliedLsn, cutLsn),
        sentEpoch: Math.max(sentEpoch, value.appliedEpoch),
      }),
    }))
    const { verify } = state.position
    const isMore = verify?.run === before?.run && verify?.found?.comparedBytes !== before?.found?.comparedBytes
    if (verify?.found && isMore) onComparison(verify.found, before?.found ?? null)
    if (moved) await onApplied()
    return moved
  }

  /** An epoch that the destination had received, so it was released here, and that it asks for now. */
  #lostThere({ appliedEpoch, receivedEpoch = 0, wanted }: Acknowledgement): number | undefined {
    const { epochs, position } = this.#options.state
    const held = Math.max(appliedEpoch, receivedEpoch)
    return wanted.find(({ epoch }) => epoch > held && epoch <= position.sentEpoch && !epochs.has(epoch))?.epoch
  }

  /**
   * A file that was sent and is neither applied nor there any more was lost on the way: send it again. Of the next epoch,
   * and of the last one: where several appear at once the next may be there while one behind it is lost, and only a
   * later one lets the destination see the gap.
   *
   * What the destination says to have it has taken away from there.
   *
   * A server may go on listing what it has lost, and a destination that sees no later file cannot know. So after a while
   * these are sent again whatever is listed: to a destination that has them they are nothing new.
   */
  async #lookForLost(signal: AbortSignal): Promise<void> {
    const { state, transport, folder, onWanted } = this.#options
    const { generation, appliedEpoch, sentEpoch } = state.position
    // What was released has arrived.
    const next = [...state.epochs.keys()].find((number) => number > appliedEpoch) ?? appliedEpoch + 1
    this.#lookForLostAtMs = this.#now() + stallMs
    const doubts = this.#doubts()
    const there = doubts ? new Set() : new Set((await transport.list(folder, signal)).map(({ name }) => name))
    const arrived = !doubts && this.#received.generation === generation ? this.#received.epoch : 0
    const lost = [...new Set([next, sentEpoch])].flatMap((epoch) => {
      if (epoch <= arrived) return []
      const parts = state.epochs.get(epoch)?.parts ?? []
      return parts.flatMap(({ name }, part) => (there.has(name) ? [] : [{ epoch, part }]))
    })
    if (lost.length > 0) onWanted(lost)
  }

  #doubts(): boolean {
    if (this.#now() < this.#doubtAtMs) return false
    this.#doubtMs = Math.min(this.#doubtMs * 2, lastDoubtMs)
    this.#doubtAtMs = this.#now() + this.#doubtMs
    return true
  }
}

/**
 * Only what was recorded here is sent, so a source whose state was never put back is ahead of what it hears. Of an epoch in
 * between the destination finds out itself, as the next one does not follow.
 */
function hasOvertaken(value: Acknowledgement, { generation, cutEpoch, lastTag }: StreamPosition): boolean {
  const { appliedEpoch, receivedEpoch = 0, appliedTag = lastTag } = value
  if (value.generation !== generation) return value.generation > generation
  if (Math.max(appliedEpoch, receivedEpoch) > cutEpoch) return true
  return appliedEpoch === cutEpoch && appliedTag !== lastTag
}

/** Nothing beyond what was cut can be applied; and the next journal begins behind whatever is recorded as known. */
function earlier(said: string, cutLsn: string): string {
  return BigInt(said) < BigInt(cutLsn) ? said : cutLsn
}

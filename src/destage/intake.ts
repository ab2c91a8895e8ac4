import { rename } from 'node:fs/promises'
import path from 'node:path'
import type { ReportEvent } from '../block/event-log.js'
import { StorageError } from '../block/storage-error.js'
import type { WorkerCalls } from '../block/worker-calls.js'
import { parsePartFileName, partFileName } from '../replication-file/part-file-name.js'
import type { ArrivalBuffer } from './arrival-buffer.js'
import { moveArrival } from './arrival-file.js'
import type { Declaration, VerifyJob, VerifyResult } from './destage-job.js'
import { ForeignFiles } from './foreign-files.js'
import type { InboundPosition } from './inbound-state.js'
import { type InboxCalls, VANISHED } from './inbox.js'
import type { InboxNames } from './inbox-listing.js'
import { type PartPlace, RefusedParts } from './refused-parts.js'
import type { HeldPart } from './sequencer.js'

/** Files taken from the inbox in one turn. */
const intakeLimit = 32
/** A folder with more names is flooded: listing it takes one part in so many of the time, at the most. */
const floodedNames = 4096
const listingShare = 10
/** Epochs beyond the applied one that are taken in: what bounds memory. */
const windowEpochs = 65_536

export type Held = HeldPart & { readonly declarations: readonly Declaration[] }

export interface IntakeOptions {
  readonly pairingId: Buffer
  readonly streamId: Buffer
  readonly secret: Buffer
  readonly inbox: InboxCalls
  readonly arrivals: ArrivalBuffer
  readonly worker: WorkerCalls
  readonly position: () => InboundPosition
  readonly say: (severity: Parameters<ReportEvent>[0]['severity'], code: string, text: string) => void
}

/**
 * What arrives of one stream: moved from the inbox to the arrival buffer, and held when its seal is whole. Whatever else
 * lies in the inbox is named in one event, and nothing it claims is believed.
 */
export class Intake {
  readonly #options: IntakeOptions
  readonly #held = new Map<string, Held>()
  readonly #refused = new RefusedParts()
  readonly #foreign = new ForeignFiles()
  /** Parts whose header says that a newer agent wrote them; nothing vouches for it. They are kept. */
  readonly #tooNew = new Map<string, PartPlace>()
  /** Parts of the last listing, from this one on not taken yet. */
  #listed: readonly string[] = []
  #next = 0
  /** When a listing was made, and how long it took of a flooded folder. */
  #listedAtMs = Number.NEGATIVE_INFINITY
  #listingMs = 0
  /** Perhaps moved here, by their names here: the inbox hung meanwhile, and what was under way there may have ended since. */
  readonly #unsure = new Map<string, string>()
  /** Something may have come since, and it was too early to look. */
  #isListingDue = false

  constructor(options: IntakeOptions) {
    this.#options = options
  }

  /** Whole parts, not applied yet. */
  get held(): ReadonlyMap<string, Held> {
    return this.#held
  }

  /** Damaged parts of a generation: to be asked for again. */
  refused(generation: number): PartPlace[] {
    return this.#refused.of(generation)
  }

  /** The next part to apply is one that a newer agent wrote, or seems to be. */
  get nextIsTooNew(): PartPlace | undefined {
    const { generation: current } = this.#options.position()
    const known = (place: PartPlace): boolean => current === 0 || place.generation === current
    return [...this.#tooNew.values()].find((place) => known(place) && this.#isNext(place))
  }

  /**
   * The newest generation of which a whole part is here, or that of the position: that is where the source is. A damaged
   * file proves nothing, and the source does not listen to what is said of another generation than its own; so what it
   * claims counts only before anything else is known. The source looks itself for what was lost of a new one.
   */
  get generation(): number {
    const held = [...this.#held.values()]
    const { generation: current } = this.#options.position()
    const newest = held.reduce((newest, { generation }) => Math.max(newest, generation), current)
    return newest > 0 ? newest : this.#refused.oldestGeneration
  }

  /** What was here before a stop or crash is looked at again, as if it had arrived now. */
  async reopen(): Promise<void> {
    for (const name of await this.#options.arrivals.open()) await this.#admit(name)
  }

  /**
   * A folder that takes long to list, because it is flooded, is not listed for each few files: what the last listing
   * gave is taken first.
   * @returns how many files were taken from the inbox; there may be more
   */
  async take(): Promise<number> {
    const { arrivals } = this.#options
    await this.#list()
    for (const [as, name] of [...this.#unsure]) {
      await arrivals.take(as, async () => null)
      await this.#admit(name, as)
      this.#unsure.delete(as)
    }
    const taken = await this.#takeListed()
    this.#sayForeign(this.#foreign.flush(this.#folder))
    return taken
  }

  async #takeListed(): Promise<number> {
    const { inbox, arrivals, position } = this.#options
    const { streamId, generation: current, appliedEpoch, removed } = position()
    let taken = 0
    while (taken < intakeLimit && this.#next < this.#listed.length) {
      const name = this.#listed[this.#next++]!
      const place = parsePartFileName(name)!
      const { generation, epoch } = place
      if (generation === current && epoch > appliedEpoch + windowEpochs) continue
      let fault: string | null
      if (generation < current || (generation === current && (removed || epoch <= appliedEpoch))) {
        fault = await inbox.remove(streamId, name)
      } else {
        // What is held is whole, and the source may have given it up for that: only what is whole takes its place.
        const as = this.#held.has(name) ? `${name}.tmp` : name
        this.#unsure.set(as, name)
        fault = await arrivals.take(as, (to) => inbox.take(streamId, name, to))
        this.#unsure.delete(as)
        if (fault === null) await this.#admit(name, as)
        if (fault === null || fault === VANISHED) taken += 1
      }
      if (fault !== null) await this.#putAway(name, place, fault)
    }
    return taken
  }

  /** After so long it has to be looked what came meanwhile. */
  get listingDueMs(): number {
    return this.#isListingDue ? Math.max(1, this.#listableAtMs - performance.now()) : Number.POSITIVE_INFINITY
  }

  get #listableAtMs(): number {
    return this.#listedAtMs + this.#listingMs * listingShare
  }

  async #list(): Promise<void> {
    const { inbox, worker, position } = this.#options
    const from = performance.now()
    this.#isListingDue = from < this.#listableAtMs
    if (this.#isListingDue) return
    const listLarge = (folder: string): Promise<InboxNames> => worker.call<InboxNames>('list', folder)
    const { parts, others } = await inbox.names(position().streamId, listLarge)
    for (const name of others) this.#leave(name, 'its name is not that of a replication file')
    this.#listed = parts
    this.#next = 0
    this.#listedAtMs = performance.now()
    this.#listingMs = parts.length + others.length > floodedNames ? this.#listedAtMs - from : 0
  }

  /** Something held is not what it was: the sound ones are held again, the others set aside and asked for. */
  async lookAgain(parts: readonly HeldPart[]): Promise<void> {
    const { worker, arrivals } = this.#options
    for (const { name } of parts) {
      this.#held.delete(name)
      await worker.call('forget', arrivals.file(name))
      await this.#admit(name)
    }
  }

  /** Nobody needs it any more. */
  async drop(part: HeldPart): Promise<void> {
    const { worker, arrivals } = this.#options
    this.#held.delete(part.name)
    await worker.call('forget', arrivals.file(part.name))
    await arrivals.remove(part.name)
  }

  /** Nothing that has arrived is needed. */
  async clear(): Promise<void> {
    for (const part of [...this.#held.values()]) await this.drop(part)
    this.#tooNew.clear()
    this.#refused.forget(this.#options.position().generation, Number.MAX_SAFE_INTEGER)
    await this.#options.arrivals.clear()
  }

  /** Claims about epochs that are applied count no more. */
  forgetPassed(): void {
    const { generation, appliedEpoch } = this.#options.position()
    this.#refused.forget(generation, appliedEpoch)
    for (const [name, place] of this.#tooNew) {
      const passed = place.generation === generation ? place.epoch <= appliedEpoch : place.generation < generation
      if (passed) this.#tooNew.delete(name)
    }
  }

  get #folder(): string {
    return path.join(this.#options.inbox.directory, this.#options.position().streamId)
  }

  /** A file of the arrival buffer: held when its seal is whole, set aside and asked for again when not. */
  async #admit(name: string, as = name): Promise<void> {
    const { worker, arrivals, secret, pairingId, streamId, position, say } = this.#options
    const file = arrivals.file(as)
    try {
      const found = await worker.call<VerifyResult>('verify', { file, secret, pairingId, streamId } satisfies VerifyJob)
      await this.#hold(as, found)
    } catch (error) {
      if (!(error instanceof StorageError)) throw error
      if (error.code === 'FORMAT_TOO_NEW' && as === name) return this.#keep(name, error)
      if (error.retry === 'later') throw error
      if (error.code === 'NOT_FOUND') return
      const place = await arrivals.setAside(name, (to) => rename(file, to).then(() => true))
      say('error', 'FILE_REFUSED', `${error.message}. It is set aside as ${place} and asked for again. ${error.hint}`)
      const claimed = parsePartFileName(name)
      if (claimed && as === name && claimed.generation >= position().generation) this.#refused.note(claimed)
    }
  }

  /** What counts is the place under the seal, whatever the file was called. */
  async #hold(name: string, found: VerifyResult): Promise<void> {
    const { worker, arrivals } = this.#options
    const proper = partFileName({ ...found, epoch: found.epoch as Parameters<typeof partFileName>[0]['epoch'] })
    if (proper !== name) {
      await worker.call('forget', arrivals.file(name))
      // Durable before it takes the place of what is.
      if (this.#held.has(proper)) await arrivals.settle()
      await worker.call('forget', arrivals.file(proper))
      const file = arrivals.file(name)
      await arrivals.take(proper, async (to) => ((await moveArrival(file, to)) ? null : VANISHED))
    }
    this.#held.set(proper, { ...found, name: proper })
    this.#refused.settle(found)
    this.#tooNew.delete(proper)
  }

  /** It stays where it is for an agent that can read it; the right file takes its place when this one was forged. */
  #keep(name: string, error: StorageError): void {
    if (!this.#tooNew.has(name)) this.#options.say('error', error.code, `${error.message}. ${error.hint}`)
    if (this.#tooNew.size < windowEpochs) this.#tooNew.set(name, parsePartFileName(name)!)
  }

  #isNext({ generation, epoch }: PartPlace): boolean {
    const { generation: current, appliedEpoch } = this.#options.position()
    return generation > current ? epoch === 1 : generation === current && epoch === appliedEpoch + 1
  }

  /** A link, pipe or folder with the name of a part is left alone, unless the next part could not get its name then. */
  async #putAway(name: string, place: PartPlace, fault: string): Promise<void> {
    const { inbox, arrivals, position, say } = this.#options
    if (fault === VANISHED) return
    if (!this.#isNext(place)) return this.#leave(name, fault)
    const aside = await arrivals.setAside(name, (to) => inbox.putAside(position().streamId, name, to))
    if (aside === undefined) return this.#leave(name, fault)
    const text = `${JSON.stringify(path.join(this.#folder, name))} was in the way of the next part: ${fault}. It is set aside as ${aside}`
    say('warning', 'FOREIGN_FILE', text)
  }

  #leave(name: string, why: string): void {
    this.#sayForeign(this.#foreign.note(name, this.#folder, why))
  }

  #sayForeign(text: string | undefined): void {
    if (text !== undefined) this.#options.say('warning', 'FOREIGN_FILE', text)
  }
}

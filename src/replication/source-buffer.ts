import path from 'node:path'
import { makeFolder } from '../block/durable-file.js'
import { Exclusive } from '../block/exclusive.js'
import { StorageError } from '../block/storage-error.js'
import { asBufferFault, type BufferFiles, bringFile, bufferFiles, leftText, makeDurably } from './buffer-files.js'
import { BufferMover } from './buffer-mover.js'
import type { BufferPlace, StreamState } from './stream-state.js'

export interface SourceBufferOptions {
  /** Where it lies unless it was moved. */
  readonly home: string
  readonly state: StreamState
  readonly say?: (severity: 'info' | 'warning', code: string, text: string) => void
  readonly files?: BufferFiles
}

/** How far a move is. */
export interface BufferMove {
  readonly from: string
  readonly doneBytes: number
  readonly totalBytes: number
  /** It was called off: files go back to where they were. */
  readonly returning: boolean
  /** What keeps it from going on now, or null. */
  readonly trouble: string | null
}

/**
 * The folder of sealed replication files that wait to be applied at the destination: one folder a stream; two of them
 * while it is moved.
 *
 * What counts is the stream's state: a file no committed epoch names was never sent, and is removed at start. Each file
 * that is named lies whole in the folder this object says; a name in the other folder is a left-over.
 */
export class SourceBuffer {
  readonly #state: StreamState
  readonly #home: string
  readonly #files: BufferFiles
  readonly #say: NonNullable<SourceBufferOptions['say']>
  readonly #turns = new Exclusive()
  #place: BufferPlace
  /** The folder of each file; what is not in it lies where new ones go. */
  readonly #where = new Map<string, string>()
  /** Files that are being read, folders that are being written to: how often. */
  readonly #uses = new Map<string, number>()
  #mover: BufferMover | undefined
  #saidTrouble = ''

  constructor({ home, state, say, files }: SourceBufferOptions) {
    this.#home = home
    this.#state = state
    this.#say = say ?? (() => undefined)
    this.#files = files ?? bufferFiles
    this.#place = state.bufferPlace ?? this.#settled(home)
  }

  /** Where new files go. */
  get directory(): string {
    return this.#place.directory
  }

  get move(): BufferMove | null {
    const { leaving: from, returning, totalBytes } = this.#place
    if (from === null) return null
    const left = this.#leftBytes
    const total = Math.max(totalBytes, left)
    return { from, doneBytes: total - left, totalBytes: total, returning, trouble: this.#mover?.trouble ?? null }
  }

  /**
   * Before anything is written to it: what is applied and what no epoch names goes, and a move that was under way goes on.
   * @throws StorageError BUFFER_UNAVAILABLE
   */
  open(): Promise<void> {
    return this.#turn(() => asBufferFault(this.directory, () => this.#open()))
  }

  async #open(): Promise<void> {
    if (this.directory === this.#home) await makeFolder(this.#home)
    // A crash may have come between the acknowledgement and this. With a full buffer no epoch would follow that releases it.
    await this.release(this.#state.position.appliedEpoch)
    const { directory, leaving } = this.#place
    const here = await this.#locate()
    const known = this.#known()
    for (const name of here) if (!known.has(name)) await this.#files.remove(path.join(directory, name))
    // A new name that was seen may not be durable yet, and the old one goes.
    if (leaving !== null && here.length > 0) await this.#files.syncDirectory(directory)
    await this.#sweep()
  }

  /** A move that was under way goes on, also while the stream does not run. */
  resumeMove(): Promise<void> {
    return this.#turns.run(async () => {
      if (this.#place.leaving === null || this.#mover) return
      try {
        await this.#locate()
        this.#startMover()
      } catch (error) {
        this.#say('warning', 'BUFFER_MOVE_WAITS', `The move of the source buffer does not go on: ${error}`)
      }
    })
  }

  /** No move goes on from here, until it is opened again. */
  close(): Promise<void> {
    return this.#turns.run(() => this.#stopMover())
  }

  /** @returns names in the folder new files go to; in both, this one counts, for it was whole when it got its name */
  async #locate(): Promise<string[]> {
    const { directory, leaving } = this.#place
    const here = (await this.#files.list(directory)) ?? []
    const present = new Set(here)
    for (const name of this.#known().keys()) {
      if (leaving === null || present.has(name)) this.#where.delete(name)
      else this.#where.set(name, leaving)
    }
    return here
  }

  /**
   * Move it to another folder, while files are cut, sent and released. The folder is durable, then the move is recorded,
   * then new files go there; the others follow in the background. A file written there before the record would be
   * missed after a crash.
   *
   * @param directory not there yet, or empty
   * @throws StorageError BUFFER_MOVE_RUNNING, BUFFER_UNAVAILABLE
   */
  moveTo(directory: string): Promise<void> {
    return this.#turn(async () => {
      const { leaving, directory: from } = this.#place
      if (leaving !== null) {
        throw new StorageError('BUFFER_MOVE_RUNNING', {
          op: 'buffer move',
          object: directory,
          hint: `The move from ${leaving} to ${from} is not over. Wait for it, or call it off: tidemark buffer abort`,
        })
      }
      await asBufferFault(this.directory, () => makeDurably(directory))
      for (const name of this.#known().keys()) if (!this.#where.has(name)) this.#where.set(name, from)
      await this.#record({ directory, leaving: from, returning: false, totalBytes: this.bytes })
      // What a failed attempt left there must not be found under the name of a file that is elsewhere.
      await this.#sweep().catch(() => undefined)
      this.#say('info', 'BUFFER_MOVE_STARTED', `The source buffer moves from ${from} to ${directory}.`)
    })
  }

  /**
   * Call a move off: what was moved goes back, and so do new files.
   * @throws StorageError BUFFER_NOT_MOVING, BUFFER_UNAVAILABLE
   */
  abortMove(): Promise<void> {
    return this.#turn(async () => {
      const { directory, leaving, returning } = this.#place
      if (leaving === null || returning) {
        throw new StorageError('BUFFER_NOT_MOVING', {
          op: 'buffer abort',
          object: directory,
          hint: returning ? 'The move was called off already; files are on their way back.' : 'No move is under way.',
        })
      }
      // A left-over in the old folder must not be taken for a file that comes back.
      await asBufferFault(this.directory, () => this.#sweep())
      for (const name of this.#known().keys()) if (!this.#where.has(name)) this.#where.set(name, directory)
      let totalBytes = 0
      for (const [name, length] of this.#known()) if (this.#where.get(name) === directory) totalBytes += length
      await this.#record({ directory: leaving, leaving: directory, returning: true, totalBytes })
      this.#say('info', 'BUFFER_MOVE_ABORTED', `The source buffer goes back from ${directory} to ${leaving}.`)
    })
  }

  file(name: string): string {
    return path.join(this.#where.get(name) ?? this.directory, name)
  }

  /** The file stays where it is until `use` has ended. */
  read<T>(name: string, use: (file: string) => Promise<T>): Promise<T> {
    const file = this.file(name)
    return this.#using(file, () => use(file))
  }

  /**
   * Put files into the folder that `write` is given, which stays until it has ended. It calls `placed` with their names
   * when they are whole, before an epoch names them; what no epoch names in the end is a left-over.
   */
  async write<T>(write: (directory: string, placed: (names: readonly string[]) => void) => Promise<T>): Promise<T> {
    const { directory } = this
    const written: string[] = []
    const placed = (names: readonly string[]): void => {
      written.push(...names)
      for (const name of names) this.#where.set(name, directory)
    }
    try {
      return await this.#using(directory, () => write(directory, placed))
    } finally {
      const known = written.length > 0 ? this.#known() : undefined
      for (const name of written) if (!known?.has(name)) this.#where.delete(name)
    }
  }

  get bytes(): number {
    let bytes = 0
    for (const length of this.#known().values()) bytes += length
    return bytes
  }

  /**
   * Give back the space of all epochs up to this one: they are forgotten, then their files go. With the files first a
   * crash would leave an epoch that is to be sent again and cannot be.
   *
   * @returns whether there were any
   */
  async release(upTo: number): Promise<boolean> {
    const gone = [...this.#state.epochs.values()].filter(({ epoch }) => epoch <= upTo)
    if (gone.length === 0) return false
    await this.#state.forgetEpochs(gone.map(({ epoch }) => epoch))
    for (const { parts } of gone) {
      for (const { name } of parts) {
        this.#where.delete(name)
        // One that its disk does not let go of is a left-over, and goes when the buffer is opened again.
        for (const folder of this.#folders) await this.#files.remove(path.join(folder, name)).catch(() => undefined)
      }
    }
    return true
  }

  /** Nothing is in it any more. Nobody writes to it or reads from it. @throws StorageError BUFFER_UNAVAILABLE */
  clear(): Promise<void> {
    return this.#turns.run(async () => {
      await this.#stopMover()
      await this.#forget()
      await asBufferFault(this.directory, () => this.#empty())
    })
  }

  /** As if it had never been, nor been moved. Nobody writes to it or reads from it. */
  remove(): Promise<void> {
    return this.#turns.run(async () => {
      await this.#stopMover()
      await this.#forget()
      // No other stream's are called so: what a disk does not let go of harms nobody.
      await this.#empty().catch((error) => this.#say('warning', 'BUFFER_LEFT', leftText(this.directory, error)))
      for (const folder of this.#folders) await this.#removeFolder(folder)
      await this.#state.placeBuffer(null)
      this.#place = this.#settled(this.#home)
    })
  }

  async #forget(): Promise<void> {
    await this.#state.forgetEpochs([...this.#state.epochs.keys()])
    this.#where.clear()
  }

  async #empty(): Promise<void> {
    for (const folder of this.#folders) {
      for (const name of (await this.#files.list(folder)) ?? []) await this.#files.remove(path.join(folder, name))
    }
  }

  get #folders(): string[] {
    const { directory, leaving } = this.#place
    return leaving === null ? [directory] : [directory, leaving]
  }

  #known(): Map<string, number> {
    const known = new Map<string, number>()
    for (const { parts } of this.#state.epochs.values())
      for (const part of parts) known.set(part.name, part.lengthBytes)
    return known
  }

  #behind(): string[] {
    const { leaving } = this.#place
    if (leaving === null) return []
    // What no epoch names may still be written once more.
    return [...this.#known().keys()].filter((name) => this.#where.get(name) === leaving)
  }

  get #leftBytes(): number {
    const known = this.#known()
    return this.#behind().reduce((bytes, name) => bytes + (known.get(name) ?? 0), 0)
  }

  #settled(directory: string): BufferPlace {
    return { directory, leaving: null, returning: false, totalBytes: 0 }
  }

  async #record(place: BufferPlace): Promise<void> {
    const atHome = place.leaving === null && place.directory === this.#home
    await this.#state.placeBuffer(atHome ? null : place)
    this.#place = place
    this.#saidTrouble = ''
  }

  /** While the mover stands still; it goes on afterwards, if there is something to move. */
  #turn(action: () => Promise<void>): Promise<void> {
    return this.#turns.run(async () => {
      await this.#stopMover()
      try {
        await action()
      } finally {
        this.#startMover()
      }
    })
  }

  #startMover(): void {
    if (this.#place.leaving === null) return
    this.#mover = new BufferMover({
      behind: () => this.#behind(),
      bring: (name) => this.#bring(name),
      finish: () => this.#finish(),
      onTrouble: (text) => this.#sayTrouble(text),
    })
  }

  /** Once for each cause: a mover begins anew whenever something else is done with the buffer. */
  #sayTrouble(text: string): void {
    if (text !== this.#saidTrouble) this.#say('warning', 'BUFFER_MOVE_WAITS', `The source buffer waits: ${text}`)
    this.#saidTrouble = text
  }

  async #stopMover(): Promise<void> {
    await this.#mover?.end()
    this.#mover = undefined
  }

  /** @returns false: it is being read, and stays for now */
  async #bring(name: string): Promise<boolean> {
    const { directory, leaving } = this.#place
    if (leaving === null || this.#where.get(name) !== leaving) return true
    const from = path.join(leaving, name)
    if (this.#uses.has(from)) return false
    try {
      await bringFile(this.#files, from, directory, name)
    } catch (error) {
      const there = await this.#files.list(leaving)
      // Released meanwhile, or lost: then it is missed where it is looked for.
      if (there === undefined || there.includes(name)) throw error
      if (this.#where.has(name)) this.#where.set(name, directory)
      else await this.#files.remove(path.join(directory, name))
      return true
    }
    if (!this.#where.has(name)) await this.#files.remove(path.join(directory, name))
    else if (this.#uses.has(from)) return false
    else this.#where.set(name, directory)
    // What stays goes with the rest at the end.
    await this.#files.remove(from).catch(() => undefined)
    return true
  }

  /**
   * Every file lies in the new folder: the old one is forgotten, then removed. Forgotten before, its files would be lost.
   * @returns false: an epoch is still written to it
   */
  async #finish(): Promise<boolean> {
    const { directory, leaving, returning } = this.#place
    if (leaving === null) return true
    if (this.#uses.has(leaving) || this.#behind().length > 0) return false
    // Nothing there is needed: a disk that does not let go of it must not keep the move from ending.
    await this.#sweep().catch((error) => this.#say('warning', 'BUFFER_LEFT', leftText(leaving, error)))
    await this.#record(this.#settled(directory))
    await this.#removeFolder(leaving)
    const what = returning ? 'is back' : 'was moved; it is'
    this.#say('info', 'BUFFER_MOVED', `The source buffer ${what} in ${directory}. Nothing of it is in ${leaving}.`)
    return true
  }

  /** What lies in the folder that is left, and need not: names that are held elsewhere, or by no epoch. */
  async #sweep(): Promise<void> {
    const { leaving } = this.#place
    if (leaving === null) return
    const known = this.#known()
    for (const name of (await this.#files.list(leaving)) ?? []) {
      if (this.#where.get(name) === leaving) continue
      if (!known.has(name) && this.#uses.has(leaving)) continue
      await this.#files.remove(path.join(leaving, name))
    }
  }

  /** And what held nothing but it. What others put there stays. */
  async #removeFolder(directory: string): Promise<void> {
    await this.#files.removeFolder(directory).catch(() => undefined)
    await this.#files.removeFolder(path.dirname(directory)).catch(() => undefined)
  }

  async #using<T>(what: string, use: () => Promise<T>): Promise<T> {
    this.#uses.set(what, (this.#uses.get(what) ?? 0) + 1)
    try {
      return await use()
    } finally {
      const left = this.#uses.get(what)! - 1
      if (left > 0) this.#uses.set(what, left)
      else this.#uses.delete(what)
    }
  }
}

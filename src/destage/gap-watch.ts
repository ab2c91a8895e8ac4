/** A gap is told to the source after so long: files may still be on their way. */
const graceMs = 2_000
/** One that stays where it is for so long is told to operators. */
const alarmMs = 60_000
const hint =
  'The source is asked for it. See there: tidemark stream status; if it has it no more: tidemark stream initialize'

export interface GapWatchOptions {
  readonly say: (severity: 'info' | 'warning', code: string, text: string) => void
  /** A clock that never jumps, milliseconds. */
  readonly now?: (() => number) | undefined
}

/** How long something has been missing although something later is here. Tells of each that lasts once, and when it is closed. */
export class GapWatch {
  readonly #say: GapWatchOptions['say']
  readonly #now: () => number
  #openSinceMs: number | null = null
  #first: { readonly place: string; readonly sinceMs: number; told: boolean } | undefined

  constructor({ say, now = () => performance.now() }: GapWatchOptions) {
    this.#say = say
    this.#now = now
  }

  get isOpen(): boolean {
    return this.#openSinceMs !== null
  }

  /** What is missing is no longer expected to come by itself. */
  get isLasting(): boolean {
    return this.#openSinceMs !== null && this.#now() - this.#openSinceMs > graceMs
  }

  /** @param place what the next epoch waits for, as operators know it; undefined: nothing that they would be told of */
  note(isOpen: boolean, place: string | undefined): void {
    const nowMs = this.#now()
    this.#openSinceMs = isOpen ? (this.#openSinceMs ?? nowMs) : null
    if (this.#first && this.#first.place !== place) {
      if (this.#first.told) this.#say('info', 'SEQUENCE_GAP_CLOSED', `${this.#first.place} is not missing any more`)
      this.#first = undefined
    }
    if (place === undefined) return
    this.#first ??= { place, sinceMs: nowMs, told: false }
    if (this.#first.told || nowMs - this.#first.sinceMs < alarmMs) return
    this.#first.told = true
    this.#say('warning', 'SEQUENCE_GAP', `${place} has not arrived for a minute, what follows it waits. ${hint}`)
  }
}

import { noLayer } from './geometry.js'

export interface CheckProgress {
  readonly donePages: number
  readonly totalPages: number
}

/** Pages between two reports. */
const reportPages = 1024

/** How often each used unit is read while layers are looked at: blocks they have twice, then all of them. */
const layerReads = 2

/** Counts pages of units that a check has read, of those it will read. A check that finds damage may read more. */
export class CountedPages {
  readonly #report: ((progress: CheckProgress) => void) | undefined
  #done = 0
  #total = 0
  #reported = 0

  constructor(report: ((progress: CheckProgress) => void) | undefined) {
    this.#report = report
  }

  /** A checkpoint is about to be read. @param layers the owner of each unit, or none */
  expect(unitCount: number, layers: Uint32Array): void {
    let used = 0
    for (const layer of layers) if (layer !== noLayer) used += 1
    // Its layers are looked at once, whichever checkpoint they are of.
    const layerPages = this.#total === 0 ? used * layerReads : 0
    this.#total += unitCount + layerPages
  }

  add(pages: number): void {
    this.#done += pages
    if (this.#done - this.#reported < reportPages && this.#done < this.#total) return
    this.#reported = this.#done
    this.#report?.({ donePages: Math.min(this.#done, this.#total), totalPages: this.#total })
  }
}

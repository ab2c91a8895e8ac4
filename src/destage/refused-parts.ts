/** A part by its place. */
export interface PartPlace {
  readonly generation: number
  readonly epoch: number
  readonly part: number
}

/** Places remembered, at the most: as many as epochs are taken in beyond the applied one. */
export const REFUSED_LIMIT = 4096

/**
 * Parts that came damaged and are asked for again. Their places are what their names claim, and whoever can write to the
 * inbox can claim anything: so no claim makes another one forgotten that is nearer to what is applied.
 */
export class RefusedParts {
  readonly #places = new Map<string, PartPlace>()

  note(place: PartPlace): void {
    this.#places.set(keyOf(place), place)
    if (this.#places.size <= REFUSED_LIMIT) return
    const farthest = [...this.#places.values()].reduce((far, each) => (isBehind(each, far) ? each : far))
    this.#places.delete(keyOf(farthest))
  }

  /** It has arrived whole. */
  settle(place: PartPlace): void {
    this.#places.delete(keyOf(place))
  }

  /** Those up to this epoch, and those of generations before this one, are not needed any more. */
  forget(generation: number, appliedEpoch: number): void {
    for (const [key, place] of this.#places) {
      if (place.generation < generation || (place.generation === generation && place.epoch <= appliedEpoch)) {
        this.#places.delete(key)
      }
    }
  }

  /** Of one generation. */
  of(generation: number): PartPlace[] {
    return [...this.#places.values()].filter((place) => place.generation === generation)
  }

  /** The oldest generation claimed, or 0. */
  get oldestGeneration(): number {
    let oldest = 0
    for (const { generation } of this.#places.values()) if (oldest === 0 || generation < oldest) oldest = generation
    return oldest
  }
}

/** Whether `one` comes after `other`. */
function isBehind(one: PartPlace, other: PartPlace): boolean {
  if (one.generation !== other.generation) return one.generation > other.generation
  return one.epoch > other.epoch || (one.epoch === other.epoch && one.part > other.part)
}

function keyOf({ generation, epoch, part }: PartPlace): string {
  return `${generation}/${epoch}/${part}`
}

import type { Damage } from './tree-reader.js'

export interface PoolFinding {
  /** `warning`: nothing a volume shows is wrong because of it. */
  readonly severity: 'warning' | 'error'
  /** `device 0, unit 17`, `layer 5`, `log`. */
  readonly object: string
  readonly text: string
  /** Volumes and snapshots (VOLUME@SNAPSHOT) that may show less than they did. */
  readonly volumes: readonly string[]
  readonly repaired: boolean
}

type NewFinding = Omit<PoolFinding, 'repaired'> & { readonly repairable: boolean }

/** Findings kept; the rest is counted. */
const findingLimit = 1000

export class Findings {
  readonly #list: NewFinding[] = []
  #dropped = 0

  add(finding: NewFinding): void {
    if (this.#list.length < findingLimit) this.#list.push(finding)
    else this.#dropped += 1
  }

  /** Copies of metadata that were read around. */
  addDamage(damage: readonly Damage[], severity: 'warning' | 'error', repairable: boolean): void {
    for (const { where, what } of damage) this.add({ severity, object: where, text: what, volumes: [], repairable })
  }

  get isEmpty(): boolean {
    return this.#list.length === 0
  }

  /** Something is to be written that helps. */
  get isRepairable(): boolean {
    return this.#list.some(({ repairable }) => repairable)
  }

  /** @param repaired what can be repaired has been */
  list(repaired: boolean): PoolFinding[] {
    const list = this.#list.map(({ repairable, ...finding }) => ({ ...finding, repaired: repaired && repairable }))
    if (this.#dropped === 0) return list
    const text = `${this.#dropped} findings more`
    return [...list, { severity: 'warning', object: 'pool', text, volumes: [], repaired }]
  }
}

/** Numbers named one by one in a finding. */
const listLimit = 16

/** `3, 4, 5 and 200 more`. */
export function listed(numbers: readonly number[]): string {
  const some = numbers.slice(0, listLimit).join(', ')
  return numbers.length > listLimit ? `${some} and ${numbers.length - listLimit} more` : some
}

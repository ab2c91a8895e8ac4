import { type Profiler, Session } from 'node:inspector'

/** This project's code, and that which reads bytes for it. */
const followed = /\/dist\/src\/|\/node_modules\/(basic-ftp|yaml)\//

/**
 * Which blocks of this code have run, by V8's precise coverage.
 *
 * Asking costs some milliseconds, however little has run since: a fuzzer asks once for many inputs, and again for each of
 * them only when there is something new.
 */
export class Coverage {
  readonly #session = new Session()
  readonly #seen = new Set<string>()

  constructor() {
    this.#session.connect()
    this.#post('Profiler.enable')
    this.#post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  }

  /** Blocks that have run at least once. */
  get blockCount(): number {
    return this.#seen.size
  }

  /** The blocks that have run since the last call and never before. */
  takeNew(): string[] {
    const { result } = this.#post('Profiler.takePreciseCoverage') as Profiler.TakePreciseCoverageReturnType
    const fresh: string[] = []
    for (const { url, functions } of result) {
      if (!followed.test(url)) continue
      for (const { ranges } of functions) {
        for (const { startOffset, endOffset, count } of ranges) {
          const block = `${url}:${startOffset}-${endOffset}`
          if (count === 0 || this.#seen.has(block)) continue
          this.#seen.add(block)
          fresh.push(block)
        }
      }
    }
    return fresh
  }

  /** As if these had never run. */
  forget(blocks: readonly string[]): void {
    for (const block of blocks) this.#seen.delete(block)
  }

  note(blocks: readonly string[]): void {
    for (const block of blocks) this.#seen.add(block)
  }

  /** The session of this thread answers before it returns. */
  #post(method: string, parameters: object = {}): unknown {
    let answer: unknown
    let failure: Error | null = null
    this.#session.post(method, parameters, (error, value) => {
      failure = error
      answer = value
    })
    if (failure) throw failure
    return answer
  }
}

import { existsSync, readdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SourceBuffer } from '../../../src/replication/source-buffer.js'
import type { StreamState } from '../../../src/replication/stream-state.js'
import { delay } from '../../fixtures/agent.js'
import type { Random } from '../../pool/model/random.js'
import type { FarSide } from './far-side.js'

const moveLimitMs = 20_000
const lookMs = 2
/** How often a move that was under way is called off. */
const abortChance = 0.3

/** The source buffer of an agent that starts: what was left of a move goes on to its end, or is called off. */
export class RecoveredBuffer {
  /** What is wrong with it, in words. */
  readonly wrong: string[] = []
  /** What the cut has interrupted. */
  readonly interrupted: 'nothing' | 'a move' | 'a move called off'
  /** Files that no epoch named before it was opened. */
  readonly leftOver: number
  readonly #state: StreamState
  readonly #buffer: SourceBuffer

  constructor(home: string, state: StreamState) {
    this.#state = state
    this.#buffer = new SourceBuffer({ home, state })
    const place = state.bufferPlace
    this.interrupted = !place?.leaving ? 'nothing' : place.returning ? 'a move called off' : 'a move'
    const known = new Set(this.#parts().map(({ name }) => name))
    this.leftOver = this.files.filter((file) => !known.has(file.slice(file.lastIndexOf('/') + 1))).length
  }

  /** All there is, in both folders. */
  get files(): string[] {
    const { directory, move } = this.#buffer
    const folders = move ? [directory, move.from] : [directory]
    return folders.filter(existsSync).flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
  }

  file(name: string): string {
    return this.#buffer.file(name)
  }

  close(): Promise<void> {
    return this.#buffer.close()
  }

  /** Each file is there and whole at once, while it moves, and when it has moved; then it is the only one of its name. */
  async open(generation: number, far: FarSide, random: Random): Promise<void> {
    await this.#buffer.open()
    await this.#lookAtAll('right away', generation, far)
    const { move } = this.#buffer
    if (move === null || this.wrong.length > 0) return
    let goesBack = random.chance(abortChance)
    const deadline = performance.now() + moveLimitMs
    while (this.#buffer.move !== null) {
      const { trouble, returning } = this.#buffer.move
      goesBack ||= /ENOSPC/.test(trouble ?? '')
      // It may be over by now.
      if (goesBack && !returning) await this.#buffer.abortMove().catch(() => undefined)
      if (performance.now() > deadline) {
        this.wrong.push(`the move does not end: ${JSON.stringify(this.#buffer.move)}`)
        return
      }
      await delay(lookMs)
    }
    await this.#lookAtAll('moved', generation, far)
    const left = [move.from, this.#buffer.directory].find((folder) => folder !== this.#buffer.directory)
    const names = left !== undefined && existsSync(left) ? readdirSync(left) : []
    if (names.length > 0) this.wrong.push(`moved, and in ${left} is left ${names.join(', ')}`)
  }

  async #lookAtAll(when: string, generation: number, far: FarSide): Promise<void> {
    for (const { epoch, name, lengthBytes, part } of this.#parts()) {
      const bytes = await this.#buffer.read(name, (file) => readFile(file)).catch(() => undefined)
      if (bytes?.length !== lengthBytes)
        this.wrong.push(`${when}: ${name} has ${bytes?.length} bytes instead of ${lengthBytes}`)
      else if (far.received(generation, epoch)?.[part]?.equals(bytes) === false)
        this.wrong.push(`${when}: ${name} is another than the one that was sent`)
    }
  }

  #parts(): { readonly epoch: number; readonly part: number; readonly name: string; readonly lengthBytes: number }[] {
    return [...this.#state.epochs.values()].flatMap(({ epoch, parts }) =>
      parts.map(({ name, lengthBytes }, part) => ({ epoch, part, name, lengthBytes })),
    )
  }
}

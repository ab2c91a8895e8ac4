import { join } from 'node:path'
import { OpenFile } from './open-file.js'
import { ChildGone, type PoolChild } from './pool-child.js'
import { Random } from './random.js'
import { type ModelVolume, Shadow } from './shadow.js'

/** What a failure names: the last steps, and what was done before to the volume that is wrong. */
const lastSteps = 40
const stepsOfVolume = 80

export interface Layout {
  readonly blockBytes: number
  readonly unitBytes: number
  readonly paths: string[]
}

/** What every step of a run works with. */
export class Bench {
  readonly random: Random
  readonly shadow = new Shadow()
  readonly folder: string
  readonly layout: Layout
  /** Volumes that are open, and snapshots that are written, by name. */
  readonly files = new Map<string, OpenFile>()
  /** How often a host was told that there is no room, since somebody made some. */
  refusals = 0
  /** Its process is being killed: errors mean nothing. */
  killing = false
  step = 0
  readonly #trail: string[] = []
  readonly #inFlight = new Map<ModelVolume, Set<readonly [number, number]>>()
  #child: PoolChild | undefined

  constructor(seed: number, folder: string, layout: Layout) {
    this.random = new Random(seed)
    this.folder = folder
    this.layout = layout
  }

  get child(): PoolChild {
    if (!this.#child) throw new ChildGone('no process has the pool')
    return this.#child
  }

  set child(child: PoolChild | undefined) {
    this.#child = child
  }

  get blockSectors(): number {
    return this.layout.blockBytes / 512
  }

  origin = (serial: number): string => this.shadow.origin(serial)

  note(text: string): void {
    this.#trail.push(`${this.step}: ${text}`)
  }

  /** @param volume the name of the one that is wrong */
  trail(volume: string | undefined): string {
    const last = this.#trail.slice(-lastSteps)
    const named = new RegExp(`\\b${volume}\\b|kill|power cut`)
    const before = volume === undefined ? [] : this.#trail.slice(0, -lastSteps).filter((text) => named.test(text))
    return [...before.slice(-stepsOfVolume), '...', ...last].join('\n')
  }

  mountPoint(name: string): string {
    return join(this.folder, `${name}.mount`)
  }

  /** The open file of a volume, opened if need be. */
  async open(volume: ModelVolume): Promise<OpenFile> {
    const present = this.files.get(volume.name)
    if (present) return present
    this.note(`open ${volume.name}`)
    const [name, snapshot] = volume.of ? [volume.of.volume.name, volume.of.snapshot] : [volume.name, null]
    // The volume may get another name while this is open.
    const mountPoint = this.mountPoint(snapshot === null ? name : `${snapshot}.written`)
    const file = await OpenFile.open(this.child, name, snapshot, mountPoint, false)
    this.files.set(volume.name, file)
    return file
  }

  async close(volume: ModelVolume): Promise<void> {
    const file = this.files.get(volume.name)
    if (!file) return
    this.note(`close ${volume.name}`)
    this.files.delete(volume.name)
    await file.close()
  }

  /** It has another name from here on, open or not. */
  renamed(before: string, volume: ModelVolume): void {
    const file = this.files.get(before)
    if (!file) return
    this.files.delete(before)
    this.files.set(volume.name, file)
  }

  /** Open a snapshot read-only for as long as `use` takes. */
  async withSnapshot<T>(volume: string, snapshot: string, use: (file: OpenFile) => Promise<T>): Promise<T> {
    const name = `${volume}@${snapshot}`
    const file = await OpenFile.open(this.child, volume, snapshot, this.mountPoint(name), true)
    const result = await use(file)
    await file.close()
    return result
  }

  /** Keep a range of a volume for one write; undefined when it overlaps one in flight. Ends with the function's call. */
  reserve(volume: ModelVolume, first: number, count: number): (() => void) | undefined {
    const ranges = this.#inFlight.get(volume) ?? new Set()
    this.#inFlight.set(volume, ranges)
    for (const [begin, length] of ranges) if (first < begin + length && begin < first + count) return undefined
    const range = [first, count] as const
    ranges.add(range)
    return () => ranges.delete(range)
  }
}

import type { ImageOrigin, ThinVolumeFacts } from '../../../src/pool/thin-pool.js'
import { Clock, type Content } from './content.js'

export interface ModelSnapshot {
  readonly name: string
  content: Content
  readonly hidden: boolean
  /** Tick at which it was there. */
  readonly made: number
  /** A power cut cannot undo it any more. */
  durable: boolean
  /** What hosts made of it: a volume of its own to whoever writes. */
  written: ModelVolume | undefined
}

export interface ModelVolume {
  name: string
  content: Content
  /** Nobody knows whether a rollback happened before a crash: what the volume is if it did not. */
  otherwise: Content | undefined
  readonly snapshots: Map<string, ModelSnapshot>
  image: ImageOrigin | null
  /** It is what was written to this snapshot. */
  readonly of?: { readonly volume: ModelVolume; readonly snapshot: string }
}

/** What the pool must hold: a plain model in memory. */
export class Shadow {
  readonly clock = new Clock()
  readonly volumes = new Map<string, ModelVolume>()
  readonly #origins: string[] = ['zeros']
  #nextName = 0

  /** A serial number for a write, and what it was, for who finds it in the wrong place. */
  newSerial(origin: string): number {
    return this.#origins.push(origin) - 1
  }

  origin(serial: number): string {
    return `write ${serial} (${this.#origins[serial] ?? 'never issued'})`
  }

  newName(kind: string): string {
    this.#nextName += 1
    return `${kind}${this.#nextName}`
  }

  add(name: string, content: Content): ModelVolume {
    const volume: ModelVolume = { name, content, otherwise: undefined, snapshots: new Map(), image: null }
    this.volumes.set(name, volume)
    return volume
  }

  /** A snapshot is written to from now on. Its name is as the volume's is at the time. */
  write(volume: ModelVolume, snapshot: ModelSnapshot, content: Content): void {
    snapshot.written = {
      get name() {
        return `${volume.name}@${snapshot.name}`
      },
      content,
      otherwise: undefined,
      snapshots: new Map(),
      image: null,
      of: { volume, snapshot: snapshot.name },
    }
  }

  /** Whatever hosts write. */
  get writable(): ModelVolume[] {
    const written = (volume: ModelVolume) => [...volume.snapshots.values()].flatMap((each) => each.written ?? [])
    return [...this.volumes.values()].flatMap((volume) => [volume, ...written(volume)])
  }

  /** What was acknowledged by a tick is durable, and the snapshots that were there. */
  commit(since: number): void {
    const kept = Math.min(since, this.clock.oldestHeld)
    for (const { content, snapshots } of this.volumes.values()) {
      content.commit(kept)
      for (const snapshot of snapshots.values()) {
        snapshot.content.commit(kept)
        snapshot.written?.content.commit(kept)
        if (snapshot.made < since) snapshot.durable = true
      }
    }
  }

  /** After a crash: what a power cut undid is undone here. @returns what is wrong with the pool's own list */
  matchList(listed: readonly ThinVolumeFacts[], powerCut: boolean): string[] {
    const wrong: string[] = []
    const facts = new Map(listed.map((volume) => [volume.name, volume]))
    for (const volume of this.volumes.values()) {
      const found = facts.get(volume.name)
      facts.delete(volume.name)
      if (!found) {
        wrong.push(`${volume.name} is gone`)
        continue
      }
      const sizes = [volume.content, volume.otherwise].map((content) => content && content.sectors * 512)
      if (!sizes.includes(found.sizeBytes)) {
        wrong.push(`${volume.name} has ${found.sizeBytes} bytes, not ${sizes.filter(Boolean).join(' or ')}`)
      }
      const names = new Set(found.snapshots.map(({ name }) => name))
      for (const { name, writtenBytes } of found.snapshots) {
        if (writtenBytes === null || volume.snapshots.get(name)?.written) continue
        wrong.push(`what was written to ${volume.name}@${name} is back`)
      }
      for (const snapshot of [...volume.snapshots.values()]) {
        if (names.delete(snapshot.name)) snapshot.durable = true
        else if (powerCut && !snapshot.durable) volume.snapshots.delete(snapshot.name)
        else wrong.push(`${volume.name}@${snapshot.name} is gone`)
      }
      for (const name of names) wrong.push(`${volume.name}@${name} is back`)
    }
    for (const name of facts.keys()) wrong.push(`${name} is back`)
    return wrong
  }
}

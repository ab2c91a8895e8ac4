import type { Transport } from '../transport/transport.js'
import { AcknowledgementReader } from './acknowledgement-reader.js'
import { Sender } from './sender.js'
import type { SourceBuffer } from './source-buffer.js'
import type { StreamHealth } from './stream-health.js'
import type { StreamDefinition, StreamState } from './stream-state.js'

export interface Loop {
  run(signal: AbortSignal): Promise<void>
}

export interface TransfersOptions {
  readonly definition: StreamDefinition
  readonly secret: Buffer
  readonly state: StreamState
  readonly buffer: SourceBuffer
  readonly transport: Transport
  readonly health: StreamHealth
  readonly paused: () => boolean
  /** The destination has what this source has never sent. */
  readonly onOvertaken: (generation: number) => void
  /** Something that others may wait for has changed. */
  readonly onChange: () => void
}

/** Sends what is in the source buffer and listens for acknowledgements, whether or not anything is recorded. */
export class Transfers {
  readonly sender: Sender
  readonly acknowledgements: AcknowledgementReader
  readonly loops: readonly Loop[]

  constructor(options: TransfersOptions) {
    const { secret, state, buffer, transport, health, onChange } = options
    const folder = options.definition.id
    const acknowledgements = new AcknowledgementReader({
      folder,
      secret,
      state,
      transport,
      onApplied: async () => {
        await buffer.release(state.position.appliedEpoch)
        onChange()
      },
      onReceived: async (epoch) => {
        const released = await buffer.release(epoch)
        if (released) onChange()
        return released
      },
      onComparison: (now, before) => health.noteComparison(now, before, options.definition.volumes),
      onReport: (farState, reason) => health.noteFarSide(farState, reason),
      onLostThere: (epoch) => health.noteFarSide('stalled', lostThere(epoch, options.definition.name)),
      onOvertaken: options.onOvertaken,
      onWanted: (places) => this.sender.again(places),
      onLink: (error) => health.noteReading(error),
      onBadSeal: (error) => health.noteBadSeal(error),
    })
    this.sender = new Sender({
      folder,
      state,
      buffer,
      transport,
      paused: options.paused,
      onLink: (error) => health.noteSending(error),
      onSent: () => acknowledgements.expect(),
    })
    this.acknowledgements = acknowledgements
    this.loops = [this.sender, acknowledgements]
  }
}

function lostThere(epoch: number, stream: string): string {
  return (
    `it had received epoch ${epoch}, which was released here, and asks for it again. Bring its arrival buffer back; ` +
    `if that is lost, run: tidemark stream initialize ${stream}`
  )
}

/** Loops that end together. One in which an invariant broke ends the others; hosts go on. */
export class LoopGroup {
  readonly stop = new AbortController()
  /** All have ended; never rejects. */
  readonly ended: Promise<void>

  constructor(loops: readonly Loop[], onFailure: (error: unknown) => void) {
    this.ended = Promise.all(loops.map((loop) => this.#guard(loop, onFailure))).then(() => undefined)
  }

  async #guard(loop: Loop, onFailure: (error: unknown) => void): Promise<void> {
    try {
      await loop.run(this.stop.signal)
    } catch (error) {
      const first = !this.stop.signal.aborted
      this.stop.abort()
      if (first) onFailure(error)
    }
  }
}

import type { ReportEvent } from '../block/event-log.js'

const ADDRESS_LIMIT = 256
const SILENCE_MS = 10 * 60_000

/** Reports an address that was turned away once, then keeps silent about it for ten minutes: a scan fills no log. */
export class StrangerLog {
  readonly #silentUntilMs = new Map<string, number>()
  readonly #report: ReportEvent | undefined

  constructor(report: ReportEvent | undefined) {
    this.#report = report
  }

  note(address: string, status: number, nowMs = performance.now()): void {
    if ((this.#silentUntilMs.get(address) ?? 0) > nowMs) return
    for (const [known, untilMs] of this.#silentUntilMs) if (untilMs <= nowMs) this.#silentUntilMs.delete(known)
    // More addresses than can be remembered are an attack that has been reported often enough.
    if (this.#silentUntilMs.size >= ADDRESS_LIMIT) return
    this.#silentUntilMs.set(address, nowMs + SILENCE_MS)
    const text = status === 401 ? 'showed no valid token of any pairing' : 'asked for what is not served here'
    this.#report?.({ severity: 'warning', code: 'RECEIVER_REFUSED', object: address, text: `${address} ${text}.` })
  }
}

import { appendFileSync, readFileSync, renameSync, statSync } from 'node:fs'
import type { AgentEvent, ReportEvent } from '../block/event-log.js'

/** Events kept in memory, and read back at start. */
const memoryLimit = 10_000
const fileLimitBytes = 16 * 1024 * 1024
/** One answer at the most. */
const answerLimit = 1000
/** No agent lives to see it: a number above it in the file is damage, and those that follow must have room. */
const numberLimit = 2 ** 52
const severities: readonly unknown[] = ['info', 'warning', 'error']

/** What happened, for operators: the latest in memory, all of it as lines of JSON in a file (and the one before it). */
export class EventJournal {
  readonly #file: string
  readonly #events: AgentEvent[]
  readonly #listeners = new Set<(event: AgentEvent) => void>()
  /** Ends a line that a crash cut short, so that the next is one of its own. */
  #lineEnd: string

  constructor(file: string) {
    this.#file = file
    const { events, isCutShort } = readBack(file)
    this.#events = events
    this.#lineEnd = isCutShort ? '\n' : ''
  }

  readonly report: ReportEvent = (given) => {
    const event: AgentEvent = {
      number: (this.#events.at(-1)?.number ?? 0) + 1,
      time: new Date().toISOString(),
      ...given,
    }
    this.#events.push(event)
    if (this.#events.length > memoryLimit) this.#events.shift()
    this.#append(event)
    for (const listener of this.#listeners) listener(event)
  }

  /** Oldest first. */
  after(number: number): AgentEvent[] {
    return this.#events.filter((event) => event.number > number).slice(0, answerLimit)
  }

  listen(listener: (event: AgentEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** A full disk must not stop anything: the event is still in memory. */
  #append(event: AgentEvent): void {
    try {
      appendFileSync(this.#file, `${this.#lineEnd}${JSON.stringify(event)}\n`, { mode: 0o600 })
      this.#lineEnd = ''
      if (statSync(this.#file).size > fileLimitBytes) renameSync(this.#file, `${this.#file}.1`)
    } catch {
      // Nowhere to write; followers and memory have it.
    }
  }
}

function readBack(file: string): { readonly events: AgentEvent[]; readonly isCutShort: boolean } {
  const lines = [`${file}.1`, file].flatMap((name) => {
    try {
      return readFileSync(name, 'utf8').split('\n')
    } catch {
      return []
    }
  })
  const events: AgentEvent[] = []
  for (const line of lines.slice(-memoryLimit)) {
    try {
      const event: unknown = JSON.parse(line)
      if (isEvent(event)) events.push(event)
    } catch {
      // A line cut short by a crash.
    }
  }
  return { events, isCutShort: (lines.at(-1) ?? '') !== '' }
}

/** One that is not would be served to nobody, nor those around it: an answer that breaks its schema is none. */
function isEvent(value: unknown): value is AgentEvent {
  if (typeof value !== 'object' || value === null) return false
  const { number, severity, time, code, object, text } = value as Record<string, unknown>
  const isNumbered = Number.isSafeInteger(number) && (number as number) > 0 && (number as number) <= numberLimit
  return isNumbered && severities.includes(severity) && [time, code, object, text].every((it) => typeof it === 'string')
}

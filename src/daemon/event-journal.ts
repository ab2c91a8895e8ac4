import { appendFileSync, readFileSync, renameSync, statSync } from 'node:fs'
import type { AgentEvent, ReportEvent } from '../block/event-log.js'

/** Events kept in memory, and read back at start. */
const memoryLimit = 10_000
const fileLimitBytes = 16 * 1024 * 1024
/** One answer at the most. */
const answerLimit = 1000

/** What happened, for operators: the latest in memory, all of it as lines of JSON in a file (and the one before it). */
export class EventJournal {
  readonly #file: string
  readonly #events: AgentEvent[]
  readonly #listeners = new Set<(event: AgentEvent) => void>()

  constructor(file: string) {
    this.#file = file
    this.#events = readBack(file)
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
      appendFileSync(this.#file, `${JSON.stringify(event)}\n`, { mode: 0o600 })
      if (statSync(this.#file).size > fileLimitBytes) renameSync(this.#file, `${this.#file}.1`)
    } catch {
      // Nowhere to write; followers and memory have it.
    }
  }
}

function readBack(file: string): AgentEvent[] {
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
      const event = JSON.parse(line)
      if (Number.isSafeInteger(event?.number)) events.push(event)
    } catch {
      // A line cut short by a crash.
    }
  }
  return events
}

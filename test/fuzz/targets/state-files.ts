import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { StorageError } from '../../../src/block/storage-error.js'
import { EventJournal } from '../../../src/daemon/event-journal.js'
import { parseStoredCertificate, parseStoredPairing } from '../../../src/daemon/stored-pairing.js'
import type { OpenTarget } from '../target.js'

const event = { number: 7, time: '2026-01-01T00:00:00.000Z', severity: 'info', code: 'X', object: 'o', text: 't' }

/** First byte: a pairing given out (0), the certificate (1), or events (2), as they lie in the state directory. */
export const stateFiles: OpenTarget = (folder) => {
  const file = join(folder, 'events.ndjson')
  return {
    words: ['"number":', '"severity":', '"__proto__":', '9007199254740991', '\n', 'null'].map((text) =>
      Buffer.from(text),
    ),
    seeds: () =>
      [
        `\0${JSON.stringify({ pairing: 'tidemark1-x', inbox: '/srv/in' })}`,
        `\x01${JSON.stringify({ key: 'k', cert: 'c' })}`,
        `\x02${JSON.stringify(event)}\n${JSON.stringify({ ...event, number: 8, severity: 'error' })}\n`,
      ].map((text) => Buffer.from(text)),
    run(input) {
      const kind = (input[0] ?? 0) % 3
      const text = input.toString('utf8', 1)
      if (kind === 0) assert.equal(typeof parseStoredPairing(text, 'fuzzed').inbox, 'string')
      else if (kind === 1) assert.equal(typeof parseStoredCertificate(text, 'fuzzed').cert, 'string')
      else readEvents(file, text)
    },
  }
}

function readEvents(file: string, text: string): void {
  rmSync(file, { force: true })
  writeFileSync(file, text)
  const journal = new EventJournal(file)
  const before = journal.after(0)
  for (const { number, ...rest } of before) {
    assert(Number.isSafeInteger(number) && Object.values(rest).length >= 5)
  }
  journal.report({ severity: 'info', code: 'X', object: 'o', text: 't' })
  if (before.length === 0) throw new StorageError('REFUSED', { op: 'read', object: 'events', hint: '' })
  const { number: lastBefore } = before.at(-1)!
  const last = journal.after(lastBefore).at(-1)
  assert(last && Number.isSafeInteger(last.number) && last.code === 'X')
  // Whatever stood before it, the next agent reads it.
  assert.deepEqual(new EventJournal(file).after(lastBefore).at(-1), last)
}

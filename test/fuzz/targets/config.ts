import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readConfig } from '../../../src/daemon/config.js'
import type { OpenTarget } from '../target.js'

const samples = [
  'listen: 0.0.0.0:8443\nbuffer:\n  directory: /srv/buffer\n  limit: 20GiB\n',
  'journal: { segment: 64MiB, limit: 1GiB }\ninbound:\n  directory: /srv/in\n  pool: main\n',
  'pool: { marks: [{ toString: 1 }] }\n',
  'buffer:\n  directory:\ninbound: { directory: [a, b] }\n',
  'pool:\n  wait: 30s\n  marks: [50, 70.5, 95]\nvolume:\n  threads: 4\n  direct: true\n',
]

/** The agent's configuration, which an operator may mistype. */
export const config: OpenTarget = (folder) => {
  const file = join(folder, 'tidemark.yaml')
  // The reader warns of what it refuses; ten thousand times is too much.
  process.removeAllListeners('warning')
  return {
    words: ['&a ', '*a', '<<: ', '!!js', '? ', '- ', '|\n', '1e309', '-1GiB', '__proto__: ', 'constructor: '].map(
      (text) => Buffer.from(text),
    ),
    seeds: () => samples.map((text) => Buffer.from(text)),
    async run(input) {
      writeFileSync(file, input)
      const found = await readConfig(file, folder)
      assert(found.threads >= 1 && found.threads <= 16)
      assert(Number.isSafeInteger(found.bufferLimitBytes) && found.bufferLimitBytes >= 0)
      assert(Number.isSafeInteger(found.journalLimitBytes) && found.journalLimitBytes >= 0)
      assert(Number.isSafeInteger(found.poolWaitMs) && found.poolWaitMs >= 0)
      assert(typeof found.bufferDirectory === 'string' && typeof found.direct === 'boolean')
    },
  }
}

/** The command line with an agent and an inspector that only print what they were asked. */

import { StorageError } from '../../src/block/storage-error.js'
import { runProgram } from '../../src/cli/program.js'
import { checkView } from '../api/fake-operations.js'

process.exitCode = await runProgram(process.argv.slice(2), {
  version: '1.2.3',
  environment: process.env,
  streams: process,
  local: {
    runAgent: async (options) => {
      if (options.configFile?.endsWith('broken')) throw new TypeError('a fault\nof ours \u001b[31m')
      if (options.configFile) {
        throw new StorageError('BAD_CONFIG', {
          op: 'agent',
          object: options.configFile,
          hint: 'Mend it.',
          cause: 'line\n3',
        })
      }
      process.stdout.write(`${JSON.stringify(options)}\n`)
    },
    inspectFile: async ({ write, ...options }) => {
      write(`${JSON.stringify(options)}\n`)
      if (options.json) write(`${JSON.stringify({ name: '\u007f\u009b\u202e' })}\n`)
      else write('record \u001b[2J\u009b1m end\n')
    },
    listKept: async (state) => {
      if (state.endsWith('none')) return []
      const device = { device: '/dev/loop7', sizeBytes: 64 << 20, readOnly: false } as const
      return [
        { name: 'db', ...device, state: 'waits' },
        { name: `in\u001b[31m${state}`, ...device, readOnly: true, state: 'served' },
      ]
    },
    abortKept: async (state, name) => {
      if (name === 'db') return
      throw new StorageError('NO_SUCH_DEVICE', { op: 'keeper abort', object: name, hint: `Not in ${state}.` })
    },
    checkPool: async ({ paths, repair }) => {
      const damaged = paths.some((path) => path.endsWith('damaged'))
      const text = 'its page is damaged\u001b[31m'
      const finding = { severity: 'error', object: 'unit 7', text, volumes: ['db'], repaired: repair } as const
      const clean = !damaged || repair
      return { ...checkView('fast'), devices: paths, clean, findings: damaged ? [finding] : [] }
    },
  },
})

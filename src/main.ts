#!/usr/bin/env node
/** The one program: the agent, and every command that speaks to one. */
import { readFileSync } from 'node:fs'
import { runProgram } from './cli/program.js'

// Whoever reads the output may leave early (`| head`): that is no failure.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    process.exit(process.exitCode ?? 0)
  })
}

const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }

let agentFailed = false

process.exitCode = await runProgram(process.argv.slice(2), {
  version: manifest.version,
  environment: process.env,
  streams: process,
  // Loaded when they are asked for: a command starts in a fraction of the time the agent's parts take to load.
  local: {
    runAgent: async (options) => {
      try {
        // First, and with little loaded: the program may begin anew here.
        const { protectProcess } = await import('./daemon/process-memory.js')
        protectProcess()
        await (await import('./daemon/main.js')).runAgent(options)
      } catch (error) {
        agentFailed = true
        throw error
      }
    },
    inspectFile: async (options) => (await import('./daemon/inspect.js')).inspectFile(options),
    checkPool: async (options, onProgress) =>
      (await import('./daemon/pool-check.js')).checkPoolOffline(options, onProgress),
    listKept: async (state) => (await import('./daemon/keeper-program.js')).listKept(state),
    abortKept: async (state, name) => (await import('./daemon/keeper-program.js')).abortKept(state, name),
  },
})
// An agent that failed halfway through its start has workers and devices open, which would keep the process there.
if (agentFailed) process.exit()

// Builds build/Release/tidemark.node with the project's own node-gyp. Called by `npm ci` and by hand.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')

/** Debian's package for each program the build runs. */
const programs = { 'g++': 'g++', make: 'make', python3: 'python3' }

function stop(reason) {
  console.error(`build-addon: ${reason}`)
  process.exit(1)
}

function isOnPath(program) {
  return (process.env.PATH ?? '').split(path.delimiter).some((folder) => existsSync(path.join(folder, program)))
}

/** The folder that holds include/node of the Node that runs: beside its binary, or the distribution's. */
function findNodeHeaders() {
  const beside = path.resolve(path.dirname(process.execPath), '..')
  return [beside, '/usr', '/usr/local'].find((folder) => existsSync(path.join(folder, 'include/node/node_api.h')))
}

function findNodeGyp() {
  try {
    return createRequire(path.join(root, 'package.json')).resolve('node-gyp/bin/node-gyp.js')
  } catch {
    return undefined
  }
}

if (process.platform !== 'linux') stop('Tidemark needs Linux.')
const missing = Object.keys(programs).filter((program) => !isOnPath(program))
if (missing.length > 0) {
  stop(`${missing.join(', ')} missing; run: apt-get install -y ${missing.map((name) => programs[name]).join(' ')}`)
}
const nodeGyp = findNodeGyp()
if (!nodeGyp) stop('node-gyp is not installed; run `npm ci` (with development dependencies) first.')
const headers = findNodeHeaders()
if (!headers) stop("Node's headers are missing; install the package that has include/node beside bin/node.")

// Not `rebuild`: what has not changed is not compiled again, and a running agent keeps the file it loaded.
// Two at a time: one translation unit takes up to half a gigabyte of memory.
for (const step of ['configure', 'build']) {
  const done = spawnSync(process.execPath, [nodeGyp, step, `--nodedir=${headers}`, '--jobs=2', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  if (done.error) stop(`node-gyp did not start: ${done.error.message}`)
  if (done.status !== 0) stop(`node-gyp ${step} failed; the messages are above.`)
}
console.log('build-addon: build/Release/tidemark.node is ready')

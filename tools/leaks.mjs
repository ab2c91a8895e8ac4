#!/usr/bin/env node
/**
 * What a test run left on the machine: processes that carry its mark, loop devices and mounts on files in its folder,
 * links in /dev/tidemark to devices that are gone. Prints a line for each, gives it back, and exits 1 if there was one.
 *
 * Usage: leaks.mjs MARK FOLDER      (MARK is the value of TIDEMARK_TEST_RUN in the environment of the run's processes)
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'

const [mark, folder] = process.argv.slice(2)
const within = (path) => path === folder || path.startsWith(`${folder}/`)
const leaks = []

function attempt(action) {
  try {
    return action()
  } catch {
    return undefined
  }
}
const run = (program, ...parameters) =>
  attempt(() => execFileSync(program, parameters, { stdio: 'ignore', timeout: 20_000 }))

/** A keeper has no environment, but its agent's folder in its command line. */
const isKeeper = (pid) => {
  const [program, state] = attempt(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8'))?.split('\0') ?? []
  return program === 'tidemark-keeper' && within(state ?? '')
}
const marked = () =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter(
      (pid) =>
        attempt(() => readFileSync(`/proc/${pid}/environ`, 'latin1'))?.includes(`TIDEMARK_TEST_RUN=${mark}\0`) ||
        isKeeper(pid),
    )
    // A zombie has given everything back but its number.
    .filter((pid) => !/^State:\s+Z/m.test(attempt(() => readFileSync(`/proc/${pid}/status`, 'latin1')) ?? 'State: Z'))

// What is just ending is no leak.
for (let i = 0; i < 20 && marked().length > 0; i++) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100)
for (const pid of marked()) {
  const command = attempt(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8'))
    ?.split('\0')
    .join(' ')
    .trim()
  leaks.push(`process ${pid}: ${command}`)
  attempt(() => process.kill(Number(pid), 'SIGKILL'))
}

const mounts = readFileSync('/proc/self/mounts', 'utf8')
  .trimEnd()
  .split('\n')
  .map((row) => row.split(' ').slice(0, 3))
const listing = execFileSync('losetup', ['--list', '--json', '--output', 'NAME,BACK-FILE'], { encoding: 'utf8' })
const devices = listing.trim() === '' ? [] : JSON.parse(listing).loopdevices
for (const { name, 'back-file': backing } of devices) {
  if (!within((backing ?? '').replace(/ \(deleted\)$/, ''))) continue
  leaks.push(`loop device ${name}: ${backing}`)
  for (const [source, path] of mounts.filter(([source]) => source === name || source.startsWith(`${name}p`))) {
    leaks.push(`mount ${path}: ${source}`)
    run('umount', '-l', path)
  }
  run('losetup', '-d', name)
}
for (const [source, path, type] of mounts.filter(([, path]) => within(path)).reverse()) {
  leaks.push(`mount ${path}: ${source} (${type})`)
  run('umount', '-l', path)
}
for (const link of existsSync('/dev/tidemark') ? readdirSync('/dev/tidemark') : []) {
  const target = attempt(() => readlinkSync(`/dev/tidemark/${link}`))
  const attached = target !== undefined && existsSync(`/sys/block/${target.split('/').pop()}/loop/backing_file`)
  if (attached) continue
  leaks.push(`link /dev/tidemark/${link}: ${target}`)
  attempt(() => rmSync(`/dev/tidemark/${link}`))
}

for (const leak of leaks) console.log(`left behind: ${leak}`)
process.exitCode = leaks.length === 0 ? 0 : 1

import { mkdir, readdir, rename, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { repositoryRoot } from '../../../test/fixtures/paths.js'
import { NotAvailable } from '../agents.js'
import { makeFile, run, Server } from './programs.js'
import { type Row, takesAnyVolume } from './row.js'

/** A plain loop device: what Linux itself makes of a file. */
function loopRow(id: string, title: string, directIo: 'on' | 'off', modes: Row['modes']): Row {
  return {
    id,
    title,
    group: 'limit',
    modes,
    quick: directIo === 'off',
    packages: ['losetup:mount'],
    takes: takesAnyVolume,
    diskBytes: (volumeBytes) => volumeBytes,
    async open({ folder, volumeBytes }) {
      const file = join(folder, 'volume.img')
      await makeFile(file, volumeBytes)
      const device = await run('losetup', '--find', '--show', `--direct-io=${directIo}`, file)
      return { target: { device }, close: async () => void (await run('losetup', '--detach', device)) }
    },
  }
}

/** Our own front end over the same file with nothing between them: what is above it costs the rest. */
const passThrough: Row = {
  id: 'floor',
  title: 'pass-through of our front end (the floor)',
  group: 'limit',
  modes: ['page-cache', 'direct'],
  quick: true,
  packages: ['g++:g++'],
  takes: takesAnyVolume,
  diskBytes: (volumeBytes) => volumeBytes,
  async open({ folder, volumeBytes, mode }) {
    const program = await buildPassThrough()
    const file = join(folder, 'volume.img')
    await makeFile(file, volumeBytes)
    const mountPoint = join(folder, 'mount')
    await writeFile(mountPoint, '')
    const device = /^\/dev\/\S+$/m
    const server = await Server.start(program, [mountPoint, file, mode], (output) => device.test(output))
    return { target: { device: device.exec(server.output)![0] }, close: () => server.stop() }
  },
}

const folders = ['native/frontend', 'native/sys']
const flags = ['-std=c++20', '-O2', '-D_GNU_SOURCE', '-fno-exceptions', '-pthread']

/** Compiled once, with the flags of the addon; again when a source is newer. */
async function buildPassThrough(): Promise<string> {
  const program = join(repositoryRoot, 'build/bench/pass-through')
  const own = join(repositoryRoot, 'tools/bench/pass_through.cc')
  const sources = [own]
  let newest = (await stat(own)).mtimeMs
  for (const folder of folders) {
    for (const name of await readdir(join(repositoryRoot, folder))) {
      const file = join(repositoryRoot, folder, name)
      newest = Math.max(newest, (await stat(file)).mtimeMs)
      if (name.endsWith('.cc')) sources.push(file)
    }
  }
  const built = await stat(program).then(
    ({ mtimeMs }) => mtimeMs,
    () => 0,
  )
  if (built > newest) return program
  await mkdir(dirname(program), { recursive: true })
  try {
    // Whole or not at all: an interrupted build must not be run next time.
    await run('g++', ...flags, ...sources, '-o', `${program}.new`)
    await rename(`${program}.new`, program)
  } catch (error) {
    const { stderr = '' } = error as { stderr?: string }
    throw new NotAvailable(`it does not compile: ${/\berror: .*/.exec(stderr)?.[0].slice(0, 100) ?? error}`)
  }
  return program
}

export const limitRows: readonly Row[] = [
  loopRow('loop', 'loop device, through the page cache', 'off', ['page-cache']),
  loopRow('loop-direct', 'loop device, direct I/O to the file', 'on', ['page-cache', 'direct']),
  passThrough,
]

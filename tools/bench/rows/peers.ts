import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Mode } from '../results.js'
import { makeFile, run, Server } from './programs.js'
import { type Row, takesAnyVolume } from './row.js'

const qemuPackages = ['qemu-nbd:qemu-utils']

type Format = 'raw' | 'qcow2'

/** As qemu offers it by default (through the page cache, a thread pool), or past the page cache with native requests. */
function qemuParameters(mode: Mode, format: Format, socket: string, file: string): string[] {
  const how = mode === 'direct' ? ['--cache=none', '--aio=native'] : ['--cache=writeback', '--aio=threads']
  return ['--persistent', `--format=${format}`, ...how, `--socket=${socket}`, file]
}

async function startQemu(mode: Mode, format: Format, socket: string, file: string): Promise<Server> {
  await rm(socket, { force: true })
  return Server.listening('qemu-nbd', qemuParameters(mode, format, socket, file), socket)
}

function qemuRow(format: Format): Row {
  return {
    id: `qemu-${format}`,
    title: `qemu-nbd ${format}`,
    group: 'peer',
    modes: ['page-cache', 'direct'],
    quick: true,
    packages: qemuPackages,
    takes: takesAnyVolume,
    diskBytes: (volumeBytes) => volumeBytes,
    async open({ folder, mode, volumeBytes }) {
      const [file, socket] = [join(folder, `volume.${format}`), join(folder, 'nbd.sock')]
      await run('qemu-img', 'create', '-q', '-f', format, file, String(volumeBytes))
      const server = await startQemu(mode, format, socket, file)
      return { target: { nbdSocket: socket }, close: () => server.stop() }
    },
  }
}

/** The server holds the image, so it is stopped while a snapshot is made; nothing of that is in the figures. */
const snapshotRow: Row = {
  id: 'qemu-qcow2-snapshot',
  title: 'qemu-nbd qcow2 with an internal snapshot',
  group: 'peer',
  modes: ['page-cache'],
  quick: true,
  packages: qemuPackages,
  takes: (workload) => workload.afterSnapshot === true,
  diskBytes: (volumeBytes) => 2 * volumeBytes,
  async open({ folder, mode, volumeBytes }) {
    const [file, socket] = [join(folder, 'volume.qcow2'), join(folder, 'nbd.sock')]
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', file, String(volumeBytes))
    let server = await startQemu(mode, 'qcow2', socket, file)
    let taken = false
    return {
      target: { nbdSocket: socket },
      async snapshot() {
        await server.stop()
        if (taken) await run('qemu-img', 'snapshot', '-d', 'bench', file)
        await run('qemu-img', 'snapshot', '-c', 'bench', file)
        taken = true
        server = await startQemu(mode, 'qcow2', socket, file)
      },
      close: () => server.stop(),
    }
  },
}

const nbdkit: Row = {
  id: 'nbdkit-file',
  title: 'nbdkit file',
  group: 'peer',
  // Its file plugin has no O_DIRECT.
  modes: ['page-cache'],
  quick: true,
  packages: ['nbdkit:nbdkit'],
  takes: takesAnyVolume,
  diskBytes: (volumeBytes) => volumeBytes,
  async open({ folder, volumeBytes }) {
    const [file, socket] = [join(folder, 'volume.img'), join(folder, 'nbd.sock')]
    await makeFile(file, volumeBytes)
    const server = await Server.listening('nbdkit', ['--foreground', '--unix', socket, 'file', file], socket)
    return { target: { nbdSocket: socket }, close: () => server.stop() }
  },
}

export const peerRows: readonly Row[] = [qemuRow('raw'), qemuRow('qcow2'), snapshotRow, nbdkit]

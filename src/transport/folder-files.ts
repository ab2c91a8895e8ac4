import type { FileHandle } from 'node:fs/promises'
import { errnoOf, StorageError } from '../block/storage-error.js'
import { inFolder } from './anchored-folder.js'
import { diskFault, transferFault } from './faults.js'
import { TEST_FOLDER } from './remote-name.js'
import { SourceFile } from './source-file.js'
import { TEMPORARY_SUFFIX, type TransferOptions, type Transport } from './transport.js'

/**
 * A directory that is mounted here: a disk to be shipped, or a share the system mounted.
 *
 * A file is on the disk, under its name, when put resolves. The directory itself is never made: an absent one is a disk
 * that is not mounted. An interrupted copy is begun again.
 */
export function folderFiles(base: string, pairing: string): Omit<Transport, 'test' | 'close'> {
  async function guarded<T>(op: string, object: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (error instanceof StorageError || errnoOf(error) === undefined) throw error
      throw transferFault(diskFault(error), op, object, error)
    }
  }

  return {
    async put(folder, name, localPath, options) {
      const source = await SourceFile.open(localPath)
      try {
        await guarded('put', `${base}/${pairing}/${folder}/${name}`, () =>
          inFolder(base, pairing, folder, true, async (remote) => {
            const temporary = name + TEMPORARY_SUFFIX
            const target = await remote.createFile(temporary)
            try {
              await copy(source, target, options)
            } catch (error) {
              // Nothing resumes here, so a part of a file would only take room, on a disk that may be full.
              await remote.remove(temporary).catch(() => undefined)
              throw error
            }
            await remote.rename(temporary, name)
            await remote.sync()
          }),
        )
      } finally {
        await source.close()
      }
    },

    async list(folder, signal) {
      return guarded('list', `${base}/${pairing}/${folder}`, async () => {
        return (await inFolder(base, pairing, folder, false, (remote) => remote.list(signal))) ?? []
      })
    },

    async read(folder, name, limitBytes) {
      const object = `${base}/${pairing}/${folder}/${name}`
      return guarded('read', object, () =>
        inFolder(base, pairing, folder, false, async (remote) => {
          const file = await remote.openFile(name, 'read')
          if (!file) return undefined
          try {
            if (file.lengthBytes > limitBytes) throw transferFault('REMOTE_FILE_TOO_LARGE', 'read', object)
            const bytes = Buffer.alloc(file.lengthBytes)
            const { bytesRead } = await file.handle.read(bytes, 0, bytes.length, 0)
            return bytes.subarray(0, bytesRead)
          } finally {
            await file.handle.close()
          }
        }),
      )
    },

    async remove(folder, name) {
      await guarded('remove', `${base}/${pairing}/${folder}/${name}`, async () => {
        await inFolder(base, pairing, folder, false, async (remote, pair) => {
          await remote.remove(name)
          if (folder === TEST_FOLDER) await pair.removeFolder(folder)
        })
      })
    },
  }
}

async function copy(source: SourceFile, target: FileHandle, { signal, onProgress }: TransferOptions): Promise<void> {
  try {
    await source.copyTo(target, signal, onProgress)
    signal.throwIfAborted()
    await target.sync()
    source.leaveCache(target)
    signal.throwIfAborted()
  } finally {
    await target.close()
  }
}

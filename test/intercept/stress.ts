import { execFile } from 'node:child_process'
import { mkdir, readdir } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Test } from 'tap'
import { Rig } from './rig.js'

const execute = promisify(execFile)
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..')
/** Everything but binding/ is plain C++. */
const folders = ['sys', 'device', 'extent', 'frontend', 'journal', 'pool', 'volume']
/** Compilers at a time. */
const compilerCount = 2

async function listSources(): Promise<string[]> {
  const sources = ['stress.cc', 'stress_thin.cc'].map((name) => path.join(root, 'test/intercept', name))
  for (const folder of folders) {
    const names = await readdir(path.join(root, 'native', folder))
    sources.push(...names.filter((name) => name.endsWith('.cc')).map((name) => path.join(root, 'native', folder, name)))
  }
  return sources
}

async function build(flags: readonly string[], folder: string): Promise<string> {
  await mkdir(folder)
  const sources = await listSources()
  const objects: string[] = []
  const compileNext = async (): Promise<void> => {
    for (let source = sources.pop(); source !== undefined; source = sources.pop()) {
      const object = path.join(folder, `${path.basename(path.dirname(source))}-${path.basename(source)}.o`)
      objects.push(object)
      await execute('g++', [
        '-std=c++20',
        '-O1',
        '-g1',
        '-fno-omit-frame-pointer',
        ...flags,
        '-c',
        source,
        '-o',
        object,
      ])
    }
  }
  await Promise.all(Array.from({ length: compilerCount }, compileNext))
  const program = path.join(folder, 'stress')
  await execute('g++', [...flags, ...objects, '-o', program, '-lpthread'])
  // With the keeper beside it a program that is killed leaves nothing that hangs.
  const keeper = ['keeper/keeper.cc', 'keeper/main.cc', 'sys/file_size.cc', 'sys/keeper_socket.cc']
  await execute('g++', [
    '-std=c++20',
    ...keeper.map((name) => path.join(root, 'native', name)),
    '-o',
    path.join(folder, 'tidemark_keeper'),
  ])
  return program
}

/** Build the native filter with these flags and let hosts, the journal and grants work on it together. */
export async function stress(t: Test, flags: readonly string[]): Promise<void> {
  const rig = await Rig.open()
  t.teardown(() => rig.close())
  const program = await build(flags, rig.file('build'))
  for (const table of ['linear', 'mapped', 'thin']) {
    const folder = rig.file(table)
    await mkdir(folder)
    const env = { ...process.env, TSAN_OPTIONS: 'halt_on_error=1', UBSAN_OPTIONS: 'print_stacktrace=1' }
    // Some kernels give addresses TSan does not know; a fixed layout always works.
    const run = execute('setarch', ['--addr-no-randomize', program, folder, table], { env, timeout: 120_000 })
    const { stdout } = await run.catch((error: { stderr?: string; message: string }) => {
      t.comment(error.stderr || error.message)
      return { stdout: '' }
    })
    t.match(stdout, new RegExp(`^${table}: [1-9]\\d* writes`))
  }
}

import { execFile } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import type { Test } from 'tap'
import { repositoryRoot } from '../fixtures/paths.js'
import { Rig } from './rig.js'

const execute = promisify(execFile)

/** Build the native filter under a sanitizer and let hosts, the journal and grants work on it together. */
export async function stress(t: Test, sanitizer: 'address' | 'thread'): Promise<void> {
  await execute('make', ['--silent', '-C', 'test/native', '-j2', `SANITIZER=${sanitizer}`, 'stress'], {
    cwd: repositoryRoot,
  })
  const program = path.join(repositoryRoot, 'build/sanitized', sanitizer, 'stress')
  const rig = await Rig.open()
  t.teardown(() => rig.close())
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

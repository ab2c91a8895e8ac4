import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { FuzzOptions, FuzzReport } from './fuzz.js'

/**
 * As fuzz(), in a process of its own: its memory is that of one target, and it searches when nothing else
 * wants to run, so that the tests beside it keep their times. Whatever ends this process, that one sees the end of its input
 * then, and gives back what it has.
 */
export async function fuzzApart({ target, seconds, seed }: FuzzOptions): Promise<FuzzReport> {
  const main = fileURLToPath(new URL('./main.js', import.meta.url))
  const given = [target, '--seconds', String(seconds), '--seed', String(seed), '--nice', '19', '--report']
  const child = spawn(process.execPath, [main, ...given], { stdio: ['pipe', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (piece) => {
    text += piece
  })
  const [code, signal] = await once(child, 'close')
  if (code !== 0) throw new Error(`the fuzzer of ${target} ended by itself: ${signal ?? code}`)
  return JSON.parse(text)
}

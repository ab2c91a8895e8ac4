import { spawn } from 'node:child_process'
import { join } from 'node:path'
import type { Test } from 'tap'
import { repositoryRoot } from '../../fixtures/paths.js'
import { powerCutNode } from '../../fixtures/power-cut.js'
import { newSeed } from '../../pool/model/random.js'

export interface Summary {
  readonly cuts: number
  readonly failures: number
  /** By fault of the disk: cuts that found it out. */
  readonly faultsFound: Readonly<Record<string, number>>
  /** In how many cuts a stream was found like this: judge.ts has the words. */
  readonly found: Readonly<Record<string, number>>
}

/** Run main.ts in a mount namespace of its own; what it says becomes comments. */
export async function powerCuts(t: Test, ...options: string[]): Promise<Summary> {
  const seed = newSeed()
  t.comment(`seed ${seed} (SEED=${seed} repeats its choices)`)
  const program = join(repositoryRoot, 'dist/test/crash/power-cut/main.js')
  const [unshare, ...parameters] = [...powerCutNode, program, '--seed', `${seed}`, ...options]
  const child = spawn(unshare!, parameters, { stdio: ['ignore', 'pipe', 'pipe'] })
  t.teardown(() => child.kill('SIGTERM'))
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString()
  })
  let complaints = ''
  child.stderr.on('data', (chunk: Buffer) => {
    complaints += chunk.toString()
  })
  await new Promise((resolve) => child.once('close', resolve))
  const lines = output.trim().split('\n')
  const last = lines.pop() ?? ''
  for (const line of lines) t.comment(line.replace(/^# /, ''))
  if (!last.startsWith('{')) throw new Error(`it ended before its time: ${last}\n${complaints.slice(0, 4000)}`)
  return JSON.parse(last) as Summary
}

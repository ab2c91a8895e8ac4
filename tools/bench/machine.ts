import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import os from 'node:os'

/** Of the machine, as far as figures depend on it. */
export interface MachineFacts {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  readonly kernel: string
  readonly system: string
  readonly node: string
  /** Type of the file system the bench runs on, and the kind of its disk. */
  readonly fileSystem: string
  readonly tools: Readonly<Record<string, string>>
  /** Over the minute before the run: what else was going on. */
  readonly loadBefore: number
}

const unknown = 'unknown'

export function machineFacts(directory: string): MachineFacts {
  return {
    cpu: os.cpus()[0]?.model.trim() ?? unknown,
    cores: os.availableParallelism(),
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    kernel: os.release(),
    system: systemName(),
    node: process.version,
    fileSystem: printed('findmnt', '--noheadings', '--output', 'FSTYPE,SOURCE', '--target', directory),
    tools: {
      fio: printed('fio', '--version'),
      'qemu-nbd': printed('qemu-nbd', '--version'),
      nbdkit: printed('nbdkit', '--version'),
    },
    loadBefore: os.loadavg()[0] ?? 0,
  }
}

export function checkoutFacts(root: string): { commit: string; dirty: boolean } {
  const git = (...parameters: string[]): string => printed('git', '-C', root, ...parameters)
  const changes = git('status', '--porcelain', '-uno')
  return { commit: git('rev-parse', '--short=12', 'HEAD'), dirty: changes !== '' && changes !== unknown }
}

function systemName(): string {
  try {
    return /^PRETTY_NAME="(.*)"$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? unknown
  } catch {
    return unknown
  }
}

/** The first line a program prints; `unknown` when it is not there. */
function printed(program: string, ...parameters: string[]): string {
  try {
    const text = execFileSync(program, parameters, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    return text.split('\n')[0]!.trim().replace(/\s+/g, ' ')
  } catch {
    return unknown
  }
}

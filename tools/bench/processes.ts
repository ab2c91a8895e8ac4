import { readdirSync, readFileSync } from 'node:fs'

/** Of USER_HZ, which Linux fixes at 100 on all machines this runs on. */
const secondsPerTick = 0.01

/** Processor time of a process, its threads and its workers, those that have ended included, in steps of 10 ms. */
export function cpuSeconds(pid: number): number {
  let seconds = statOf(pid).seconds
  for (const name of readdirSync('/proc')) {
    if (!/^[0-9]+$/.test(name)) continue
    try {
      const { parent, seconds: ofIt } = statOf(Number(name))
      if (parent === pid) seconds += ofIt
    } catch {
      // It has ended meanwhile: then it is counted with its parent.
    }
  }
  return seconds
}

/** Children that were waited for are in the time of their parent. Source: Linux, proc_pid_stat(5). */
function statOf(pid: number): { parent: number; seconds: number } {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0)
  return { parent: Number(fields[1]), seconds: ticks * secondsPerTick }
}

/** Processor time of the threads that live now, exact: for processes that do next to nothing. */
export function exactCpuSeconds(pid: number): number {
  let nanoseconds = 0
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      nanoseconds += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')[0])
    } catch {
      // It has ended meanwhile.
    }
  }
  return nanoseconds / 1e9
}

/** Resident memory, shared pages included. */
export function residentMiB(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
  return Number(kib) / 1024
}

/** The most it ever had. */
export function peakResidentMiB(pid: number): number {
  const kib = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
  return Number(kib) / 1024
}

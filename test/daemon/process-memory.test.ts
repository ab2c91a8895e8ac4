/** The agent's threads are I/O flushers: it begins once more, as one, in the same process. */
import { execFileSync } from 'node:child_process'
import { readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { describeMissing } from '../../src/daemon/process-memory.js'
import { Agent } from '../fixtures/agent.js'
import { scratchFolder } from '../fixtures/paths.js'

/** As a kernel that permits it, which this test may not run on: the mark goes with the process, as the kernel's does. */
const permitting = `
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <sys/syscall.h>
#include <unistd.h>
extern "C" int prctl(int option, ...) {
  va_list list;
  va_start(list, option);
  unsigned long a[4];
  for (auto& one : a) one = va_arg(list, unsigned long);
  va_end(list);
  if (option != 57 && option != 58) return syscall(SYS_prctl, option, a[0], a[1], a[2], a[3]);
  if (option == 57) return setenv("FLUSHER", "1", 1);
  if (FILE* log = fopen(getenv("FLUSHER_LOG"), "a")) {
    fprintf(log, "%d %s\\n", getpid(), getenv("FLUSHER") ? "yes" : "no");
    fclose(log);
  }
  return getenv("FLUSHER") != nullptr;
}
`

t.test('an agent becomes a flusher, begins anew in its process, and serves', async (t) => {
  const folder = scratchFolder(t, 'process-memory')
  writeFileSync(join(folder, 'shim.cc'), permitting)
  const shim = join(folder, 'shim.so')
  execFileSync('g++', ['-shared', '-fPIC', '-o', shim, join(folder, 'shim.cc')])
  const log = join(folder, 'asked')
  Object.assign(process.env, { LD_PRELOAD: shim, FLUSHER_LOG: log })
  const agent = await Agent.start(t, folder)
  delete process.env.LD_PRELOAD
  t.same(readFileSync(log, 'utf8'), `${agent.pid} no\n${agent.pid} yes\n`, 'asked twice, by one process')
  t.equal((await agent.cli<{ pid: number }>('agent', 'show')).pid, agent.pid)
  await agent.until(
    async () => agent.log(),
    (text) => text.includes('the API is served'),
  )
  t.equal(readlinkSync(`/proc/${agent.pid}/fd/0`), '/dev/null')
  for (const output of [1, 2])
    t.match(readlinkSync(`/proc/${agent.pid}/fd/${output}`), /^(pipe|socket):/, 'it has its log')
  const said = (await agent.events()).filter(({ code }) => code === 'MEMORY_NOT_PROTECTED')
  t.notMatch(said[0]?.text ?? '', /may wait in an allocation/)
  const locked = Number(/VmLck:\s+(\d+)/.exec(readFileSync(`/proc/${agent.pid}/status`, 'utf8'))![1])
  t.ok(locked > 10_000, `${locked} KiB of addresses are locked where they are touched`)
})

t.test('what could not be protected is said', async (t) => {
  t.same(describeMissing({ flusher: true, locked: true, score: true }), [])
  t.equal(describeMissing({ flusher: false, locked: false, score: false }).length, 3)
})

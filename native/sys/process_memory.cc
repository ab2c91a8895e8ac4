// SPDX-License-Identifier: Apache-2.0
#include "process_memory.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "unique_fd.h"

namespace tidemark {
namespace {

/** The keeper has -1000, the agent's workers -500. */
constexpr char score[] = "-900";

/** Threads for files, of the agent and of each worker. libuv has four: as many calls to a disk that hangs, and nothing is recorded any more. */
constexpr char fileThreads[] = "64";
constexpr char fileThreadsName[] = "UV_THREADPOOL_SIZE";

bool writeScore() {
  const UniqueFd file(open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  return file && write(file.get(), score, sizeof score - 1) == sizeof score - 1;
}

/**
 * 1 and not 0: it is less than any dump has, and of a dump that goes into a pipe the kernel asks for this number alone
 * (fs/coredump.c). The agent's workers, which have the keys of streams too, inherit it.
 */
void leaveNoCore() {
  const rlimit limit{1, 1};
  (void)setrlimit(RLIMIT_CORE, &limit);
}

}  // namespace

ProcessMemory protectProcess(const std::string& program, std::vector<std::string> words) {
  leaveNoCore();
  ProcessMemory memory;
  memory.flusher = prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) == 1;
  const bool becomesFlusher = !memory.flusher && prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0;
  const bool becomesWider = std::getenv(fileThreadsName) == nullptr && setenv(fileThreadsName, fileThreads, 0) == 0;
  if (becomesFlusher || becomesWider) {
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    // Node has marked them to be closed then: its log would go to /dev/null.
    for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) (void)fcntl(standard, F_SETFD, 0);
    execv(program.c_str(), arguments.data());
    // Threads that begin from here on have it, those that were there have not.
  }
  memory.locked = lockProgram();
  memory.score = writeScore();
  return memory;
}

void protectThread() {
  prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
  void* stack = nullptr;
  size_t bytes = 0;
  if (pthread_attr_getstack(&attributes, &stack, &bytes) == 0) lockOnFault(stack, bytes);
  pthread_attr_destroy(&attributes);
}

void lockOnFault(void* memory, size_t bytes) { (void)mlock2(memory, bytes, MLOCK_ONFAULT); }

bool lockProgram() {
  std::ifstream maps("/proc/self/maps");
  bool permitted = true;
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0, end = 0, inode = 0;
    char access[5] = {};
    int path = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %4s %*x %*s %lu %n", &begin, &end, access, &inode, &path) != 4) continue;
    const bool isFile = inode != 0 && access[3] == 'p' && access[0] == 'r';
    if (!isFile && line.compare(static_cast<size_t>(path), std::string::npos, "[heap]") != 0) continue;
    permitted = mlock2(reinterpret_cast<void*>(begin), end - begin, MLOCK_ONFAULT) == 0 && permitted;
  }
  return permitted;
}

}  // namespace tidemark

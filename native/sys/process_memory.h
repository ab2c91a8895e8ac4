// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

/**
 * A process that serves block devices must not wait for itself. Memory that it needs to write a page out may be had only
 * by writing out pages, and those may be its own hosts'. And what it has in memory is nobody else's: keys, and hosts' data.
 */
namespace tidemark {

struct ProcessMemory {
  /** No thread waits in an allocation for pages to be written out, nor in a write for anybody else's dirty pages. */
  bool flusher = false;
  /** Program, libraries and native memory of the path of a request stay in memory once they were touched. */
  bool locked = false;
  /** Killed last, but for the keeper, when memory is short. */
  bool score = false;
};

/**
 * Once, first of all. The threads of V8 and libuv exist before any code of ours runs, and a thread can be made an I/O
 * flusher only by itself: so this one becomes one and executes the same program again, whose threads inherit it all, and
 * which has more threads for files (UV_THREADPOOL_SIZE, unless it is set). Then it does not return. What cannot be done for want of a privilege is left out.
 *
 * From here on neither it nor what it starts leaves a core dump.
 *
 * Memory is locked where it is touched (MLOCK_ONFAULT): reserved addresses cost nothing. Not with mlockall(): V8 gives
 * pages back with MADV_DONTNEED, which fails for locked memory, and then ends the process.
 *
 * @param program absolute
 * @param words its arguments, from argv[0] on
 */
ProcessMemory protectProcess(const std::string& program, std::vector<std::string> words);

/** Every thread that a request, a sync or a segment of the journal passes: an I/O flusher, its stack locked. */
void protectThread();

/** Mapped memory that requests touch: it stays once it was touched. Without the privilege nothing happens. */
void lockOnFault(void* memory, size_t bytes);

/** The program, its libraries and the heap as they are now; false: not permitted. */
bool lockProgram();

}  // namespace tidemark

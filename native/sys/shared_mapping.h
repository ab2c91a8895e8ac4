// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "result.h"

namespace tidemark {

struct MappingPlace;

/**
 * A file that is mapped to be written. Where its disk does not give a page, or the file system does not take one, the kernel
 * sends SIGBUS to the thread that touched it, which ends the process. Here the whole mapping becomes memory of nobody
 * instead, the thread goes on, and the mapping is broken, for good: what was stored in it may be nowhere.
 *
 * Threads that touch it must not block SIGBUS: see SignalsBlocked. Signals for any other address do what they did before.
 */
class SharedMapping {
 public:
  /** @param flags in addition to MAP_SHARED; @error MAP_FAILED */
  static Result<std::unique_ptr<SharedMapping>> map(int fd, size_t bytes, int flags);
  ~SharedMapping();
  SharedMapping(const SharedMapping&) = delete;
  SharedMapping& operator=(const SharedMapping&) = delete;

  uint8_t* memory() const { return memory_; }
  /** A thread that has stored something, and sees false then, has stored it in the file's pages. */
  bool isBroken() const;
  /**
   * The whole pages in [from, to) are written out next, and nobody stores there meanwhile: they leave this mapping at once,
   * with what was stored in them. Otherwise the write-out takes the right to write from one page after the other, and for
   * each interrupts every processor that runs a thread of this process. Who touches one of them again has it back.
   */
  void release(size_t from, size_t to);

 private:
  SharedMapping(uint8_t* memory, size_t bytes, MappingPlace& place) : memory_(memory), bytes_(bytes), place_(place) {}

  uint8_t* const memory_;
  const size_t bytes_;
  MappingPlace& place_;
};

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#include "receive_buffer.h"

#include <sys/mman.h>

#include "../sys/process_memory.h"

namespace tidemark {

ReceiveBuffer::ReceiveBuffer() {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return;
  memory_ = static_cast<uint8_t*>(memory);
  // After a fork pages are not writable until they are touched, in both processes.
  (void)madvise(memory_, bytes, MADV_DONTFORK);
  lockOnFault(memory_, bytes);
}

ReceiveBuffer::~ReceiveBuffer() {
  if (memory_ != nullptr) munmap(memory_, bytes);
}

void ReceiveBuffer::bring() { isPresent_ = madvise(memory_, bytes, MADV_POPULATE_WRITE) == 0; }

void ReceiveBuffer::giveBack() {
  // Locked pages stay.
  (void)munlock(memory_, bytes);
  (void)madvise(memory_, bytes, MADV_DONTNEED);
  lockOnFault(memory_, bytes);
  isPresent_ = false;
}

}  // namespace tidemark

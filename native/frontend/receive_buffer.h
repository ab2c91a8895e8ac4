// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "fuse_abi.h"

namespace tidemark {

/**
 * One page for the head of a request and, page-aligned behind it, the payload.
 *
 * Its pages must be there, and writable, before the kernel receives a request into it: for a page that is not it has to ask, and
 * when the process is being killed at that moment it gives the host EIO instead of leaving the request to the next agent
 * (fuse_dev_do_read in fs/fuse/dev.c). So they are brought before, and not shared with a child. A thread that has had nothing to
 * do for a while gives them back: a volume nobody uses takes next to nothing.
 */
class ReceiveBuffer {
 public:
  ReceiveBuffer();
  ~ReceiveBuffer();
  ReceiveBuffer(const ReceiveBuffer&) = delete;
  ReceiveBuffer& operator=(const ReceiveBuffer&) = delete;

  /** False: there was no room for its addresses. */
  bool ok() const { return memory_ != nullptr; }
  bool isPresent() const { return isPresent_; }
  /** Bring all pages. Without memory for them the kernel brings them one by one as it receives. */
  void bring();
  /** What was received is lost. */
  void giveBack();

  uint8_t* payload() const { return memory_ + headBytes; }
  /** Where a request is received: a WRITE's payload then begins on the page. */
  uint8_t* head() const { return payload() - kFuseWriteHeadBytes; }
  static constexpr size_t capacity = kFuseWriteHeadBytes + kFuseTransferBytes;

 private:
  static constexpr size_t headBytes = 4096;
  static constexpr size_t bytes = headBytes + kStretchedBytes;
  uint8_t* memory_ = nullptr;
  bool isPresent_ = false;
};

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace tidemark {

/** One write to a file; its bytes are the caller's. */
struct FileWrite {
  const uint8_t* bytes;
  size_t length;
  int64_t offset;
};

/**
 * All of them, in any order. In a file that a front end serves each waits for an answer: so small ones of whole pages go many in one
 * request, others several at once. No two may touch the same bytes. Each is tried, whatever becomes of the others.
 *
 * @return 0, or the errno of one that failed
 */
int writeMany(int fd, const FileWrite* writes, size_t count);

}  // namespace tidemark

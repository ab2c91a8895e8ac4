// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace tidemark {

/**
 * Many small writes to a file that a front end serves for this agent's own programs, as one request: the value of an extended
 * attribute, which is the only request of the kernel with room for more than one. Nothing is kept under that name. Who reads the
 * attribute gets kWriteBatchAnswer: any other file would keep the value, and call that success, so nobody sends a batch
 * to one that has not answered so.
 *
 * The value: the payloads, one behind the other, then an entry for each, then their number (a uint64_t). In the byte order of the
 * machine: both ends run on it, and are of one version.
 */
constexpr char kWriteBatchName[] = "trusted.tidemark.writes";
constexpr char kWriteBatchAnswer[] = "tidemark takes many writes, version 1";
/** As much as the kernel takes (XATTR_SIZE_MAX). */
constexpr size_t kWriteBatchBytes = 64 * 1024;
/** Offsets and lengths are multiples of this. */
constexpr uint32_t kWriteBatchUnit = 4096;

struct WriteBatchEntry {
  uint64_t offset;
  uint32_t length;
  uint32_t zero;
};
static_assert(sizeof(WriteBatchEntry) == 16);

}  // namespace tidemark

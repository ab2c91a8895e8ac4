// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace tidemark {

/**
 * Many small writes to a file that a front end serves for this agent's own programs, as one request: the value of an extended
 * attribute: requests with room for many are rare. Nothing is kept under that name. Any other file would keep the value, and call
 * that success: so who wants to send one sets kWriteBatchQuestion first, with XATTR_REPLACE, and a file that takes them answers
 * EALREADY.
 *
 * The kernel locks the file for such a request alone: other writes to it wait, also for a block that this one waits for. So nobody
 * who answers faults may write there.
 *
 * The value: the payloads, one behind the other, then an entry for each, then their number (a uint64_t). In the byte order of the
 * machine: both ends run on it, and are of one version.
 */
constexpr char kWriteBatchName[] = "trusted.tidemark.writes";
constexpr char kWriteBatchQuestion[] = "?";
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

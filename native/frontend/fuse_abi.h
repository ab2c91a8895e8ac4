// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/fuse.h>

#include <cstddef>
#include <cstdint>

/**
 * The FUSE protocol as spoken here: <linux/fuse.h> of 7.38, and what later kernels added.
 */
namespace tidemark {

/** Newest minor of protocol 7 whose structures are used. */
constexpr uint32_t kFuseMinor = 38;
/** Oldest minor accepted: FUSE_INIT_EXT, that is Linux 5.17. */
constexpr uint32_t kFuseOldestMinor = 36;

/** INIT flag (7.40, Linux 6.9): requests in flight can be sent again to a server that took over. */
constexpr uint64_t kFuseHasResend = 1ULL << 39;
/** Notification (7.40): send what was read and not answered once more. A bare out header with this for its error. */
constexpr int32_t kFuseNotifyResend = 7;
/** Set in `unique` of a request that is sent again; answered as it is. */
constexpr uint64_t kFuseUniqueResend = 1ULL << 63;

/** Largest READ and WRITE, bytes. */
constexpr uint32_t kFuseTransferBytes = 1 << 20;
constexpr uint16_t kFuseTransferPages = 256;
/** Largest logical block of a volume. */
constexpr uint32_t kLogicalBlockLimit = 4096;
/** What a request comes to when it is stretched to whole logical blocks, at the most. */
constexpr uint32_t kStretchedBytes = kFuseTransferBytes + 2 * kLogicalBlockLimit;

constexpr size_t kFuseWriteHeadBytes = sizeof(fuse_in_header) + sizeof(fuse_write_in);

static_assert(sizeof(fuse_in_header) == 40);
static_assert(sizeof(fuse_out_header) == 16);
static_assert(sizeof(fuse_write_in) == 40);
static_assert(sizeof(fuse_init_out) == 64);
static_assert(offsetof(fuse_init_out, flags2) == 32);

}  // namespace tidemark

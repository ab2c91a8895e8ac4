// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "../device/backing.h"
#include "../extent/extent_table.h"
#include "../extent/fault_queue.h"

/**
 * A volume's byte range on its backing, through the extent table. What locks, journals and answers is elsewhere.
 * Calls return 0 or an errno. The table must not change under a range while it is read or written.
 */
namespace tidemark {

/** What a request asks of the blocks it touches. */
enum class Access { kRead, kWrite, kDiscard };

/**
 * The faults that stand in the way of this access, in block order, kFaultBatchLimit at the most (look again after those
 * are answered). Empty: go ahead. What changes a thin volume goes by another plan: see thin_io.h.
 */
void collectFaults(const ExtentTable& table, Access access, uint64_t offset, uint64_t length,
                   std::vector<Fault>& faults);

/** Blocks that are not mapped read as zeros. */
int readMapped(const ExtentTable& table, const Backing& backing, uint64_t offset, uint8_t* bytes, uint64_t length);
int writeMapped(const ExtentTable& table, Backing& backing, uint64_t offset, const uint8_t* bytes, uint64_t length);
/** Blocks that are not mapped are zeros already. */
int discardMapped(const ExtentTable& table, Backing& backing, uint64_t offset, uint64_t length, bool keepAllocated);
/** lseek SEEK_DATA or SEEK_HOLE: an offset, or a negative errno. With faults: look again when they are answered. */
int64_t seekMapped(const ExtentTable& table, const Backing& backing, uint64_t offset, int whence,
                   std::vector<Fault>& faults);

/**
 * Fill the block at `location` with the block at `copyFrom`, or with zeros when that is negative.
 * `lengthBytes` is less than a block for the last one of a volume.
 */
int copyBlock(const ExtentTable& table, Backing& backing, uint64_t location, int64_t copyFrom, uint64_t lengthBytes);

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#include "extent_table.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cassert>

namespace tidemark {
namespace {

// An entry: bit 63 known, 62 mapped, 61 writable, 48 low bits location. All zero: unknown.
constexpr uint64_t kKnown = uint64_t{1} << 63;
constexpr uint64_t kMapped = uint64_t{1} << 62;
constexpr uint64_t kWritable = uint64_t{1} << 61;

Extent decode(uint64_t entry) {
  return Extent{(entry & kKnown) != 0, (entry & kMapped) != 0, (entry & kWritable) != 0,
                entry & (kExtentLocationLimit - 1)};
}

static_assert(std::atomic<uint64_t>::is_always_lock_free && sizeof(std::atomic<uint64_t>) == 8);

}  // namespace

std::unique_ptr<ExtentTable> ExtentTable::linear(uint64_t sizeBytes) {
  return std::unique_ptr<ExtentTable>(new ExtentTable(sizeBytes, 0));
}

Result<std::unique_ptr<ExtentTable>> ExtentTable::mapped(uint64_t sizeBytes, uint32_t blockBytes) {
  if (sizeBytes == 0 || blockBytes < 512 || !std::has_single_bit(blockBytes)) {
    return Error{"INVALID_ARGUMENT", EINVAL, "a block is a power of two of 512 bytes or more, a volume is not empty"};
  }
  std::unique_ptr<ExtentTable> table(new ExtentTable(sizeBytes, blockBytes));
  table->blockShift_ = static_cast<uint32_t>(std::countr_zero(blockBytes));
  table->blockCount_ = (sizeBytes - 1) / blockBytes + 1;
  table->entriesBytes_ = table->blockCount_ * sizeof(uint64_t);
  // Zero pages, given by the kernel when first written: unknown entries cost nothing.
  void* memory = ::mmap(nullptr, table->entriesBytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return Error::fromErrno("NO_MEMORY", "extent table", errno);
  table->entries_ = static_cast<std::atomic<uint64_t>*>(memory);
  return table;
}

ExtentTable::~ExtentTable() {
  if (entries_ != nullptr) ::munmap(entries_, entriesBytes_);
}

Extent ExtentTable::lookup(uint64_t block) const {
  assert(block < blockCount_);
  return decode(entries_[block].load(std::memory_order_acquire));
}

void ExtentTable::install(uint64_t block, const Extent& extent) {
  assert(block < blockCount_ && extent.location < kExtentLocationLimit && (extent.mapped || !extent.writable));
  uint64_t entry = 0;
  if (extent.known) {
    entry = kKnown | (extent.mapped ? kMapped | extent.location : 0) | (extent.writable ? kWritable : 0);
  }
  entries_[block].store(entry, std::memory_order_release);
}

ExtentRun ExtentTable::runAt(uint64_t offset, uint64_t length) const {
  assert(length > 0 && offset < sizeBytes_ && length <= sizeBytes_ - offset);
  if (isLinear()) return ExtentRun{length, true, true, true, offset};
  const uint64_t block = offset >> blockShift_;
  const uint64_t within = offset & (blockBytes_ - 1);
  const Extent first = lookup(block);
  uint64_t run = blockBytes_ - within;
  for (uint64_t index = 1; run < length; ++index, run += blockBytes_) {
    const Extent other = lookup(block + index);
    if (other.known != first.known) break;
    if (!first.known) continue;
    if (other.mapped != first.mapped || other.writable != first.writable) break;
    if (first.mapped && other.location != first.location + index) break;
  }
  ExtentRun result{std::min(run, length), first.known, first.known && first.mapped, first.known && first.writable, 0};
  if (result.mapped) result.backingOffset = (first.location << blockShift_) + within;
  return result;
}

}  // namespace tidemark

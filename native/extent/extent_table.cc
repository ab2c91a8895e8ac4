// SPDX-License-Identifier: Apache-2.0
#include "extent_table.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdlib>

#include "../sys/process_memory.h"

namespace tidemark {
namespace {

// An entry: bit 63 mapped, 62 writable, 40..61 generation, 40 low bits location. All zero: not mapped.
constexpr uint64_t kMapped = uint64_t{1} << 63;
constexpr uint64_t kWritable = uint64_t{1} << 62;
constexpr uint32_t kGenerationShift = 40;
constexpr uint64_t kLeafBytes = kLeafBlocks * sizeof(uint64_t);
/** MADV_DONTNEED_LOCKED, which the distribution's headers do not have. */
constexpr int kDontNeedLocked = 24;

static_assert(uint64_t{kGenerationLimit} << kGenerationShift == kWritable);
static_assert(kExtentLocationLimit == uint64_t{1} << kGenerationShift);
static_assert(std::atomic<uint64_t>::is_always_lock_free && sizeof(std::atomic<uint64_t>) == 8);

/** Zero pages, given by the kernel when first written. */
void* reserve(uint64_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  lockOnFault(memory, bytes);
  return memory;
}

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
  table->capacityBytes_ = std::max(sizeBytes, kTableCapacityBytes);
  table->leafCapacity_ = (table->blocksOf(table->capacityBytes_) - 1) / kLeafBlocks + 1;
  void* leaves = reserve(table->leafCapacity_ * sizeof(std::atomic<Leaf>));
  void* counts = reserve(table->leafCapacity_ * sizeof(std::atomic<uint32_t>));
  table->leaves_ = static_cast<std::atomic<Leaf>*>(leaves);
  table->mappedCounts_ = static_cast<std::atomic<uint32_t>*>(counts);
  if (leaves == nullptr || counts == nullptr) return Error::fromErrno("NO_MEMORY", "extent table", ENOMEM);
  return table;
}

ExtentTable::~ExtentTable() {
  if (leaves_ != nullptr) {
    const uint64_t leafCount = (blockCount() - 1) / kLeafBlocks + 1;
    for (uint64_t leaf = 0; leaf < leafCount; leaf++) {
      const Leaf entries = leaves_[leaf].load(std::memory_order_relaxed);
      if (hasEntries(entries)) ::munmap(entries, kLeafBytes);
    }
    ::munmap(leaves_, leafCapacity_ * sizeof(std::atomic<Leaf>));
  }
  if (mappedCounts_ != nullptr) ::munmap(mappedCounts_, leafCapacity_ * sizeof(std::atomic<uint32_t>));
}

Extent ExtentTable::decode(uint64_t entry, uint32_t generation) const {
  const bool writable = (entry & kWritable) != 0 && ((entry >> kGenerationShift) & (kGenerationLimit - 1)) == generation;
  return Extent{true, (entry & kMapped) != 0, writable, entry & (kExtentLocationLimit - 1)};
}

uint64_t ExtentTable::encode(const Extent& extent) const {
  if (!extent.mapped) return 0;
  const uint64_t entry = kMapped | extent.location;
  if (!extent.writable) return entry;
  return entry | kWritable | uint64_t{generation_.load(std::memory_order_relaxed)} << kGenerationShift;
}

Extent ExtentTable::lookup(uint64_t block) const {
  assert(block < blockCount());
  const Leaf leaf = leafOf(block);
  if (leaf == nullptr) return Extent{};
  if (leaf == &nothing_) return Extent{true, false, false, 0};
  return decode(leaf[block % kLeafBlocks].load(std::memory_order_acquire), generation_.load(std::memory_order_acquire));
}

/** With changing_ held. */
ExtentTable::Leaf ExtentTable::makeLeaf(uint64_t leaf) {
  void* memory = reserve(kLeafBytes);
  // As for any other small allocation: without memory there is no going on.
  if (memory == nullptr) std::abort();
  const Leaf entries = static_cast<Leaf>(memory);
  leaves_[leaf].store(entries, std::memory_order_release);
  return entries;
}

/** With changing_ held, in a leaf that has entries. */
void ExtentTable::store(uint64_t leaf, uint64_t index, uint64_t entry) {
  Entry& place = leaves_[leaf].load(std::memory_order_relaxed)[index];
  const bool before = place.load(std::memory_order_relaxed) != 0;
  const bool after = entry != 0;
  // Counted first, so that an entry that can be seen is never passed over.
  if (!before && after) mappedCounts_[leaf].fetch_add(1, std::memory_order_release);
  place.store(entry, std::memory_order_release);
  if (before && !after) mappedCounts_[leaf].fetch_sub(1, std::memory_order_release);
}

/** With changing_ held. The memory goes back, the addresses stay: a lookup that is under way reads zeros there. */
void ExtentTable::releaseIfEmpty(uint64_t leaf) {
  const Leaf entries = leaves_[leaf].load(std::memory_order_relaxed);
  if (!hasEntries(entries) || mappedCounts_[leaf].load(std::memory_order_relaxed) != 0) return;
  // An agent locks its memory, which takes the newer call (Linux 5.18). Without it the memory stays, zeroed.
  if (::madvise(entries, kLeafBytes, kDontNeedLocked) != 0) ::madvise(entries, kLeafBytes, MADV_DONTNEED);
}

bool ExtentTable::loadLeaf(uint64_t leaf, std::span<const int64_t> entries) {
  const uint64_t first = leaf * kLeafBlocks;
  assert(first < blockCount() && (entries.empty() || entries.size() == kLeafBlocks));
  const std::lock_guard lock(changing_);
  if (leaves_[leaf].load(std::memory_order_relaxed) != nullptr) return false;
  const uint64_t count = entries.empty() ? 0 : std::min(kLeafBlocks, blockCount() - first);
  uint32_t mapped = 0;
  for (uint64_t index = 0; index < count; index++) mapped += entries[index] >= 0;
  if (mapped == 0) {
    leaves_[leaf].store(&nothing_, std::memory_order_release);
    return true;
  }
  // Filled before it can be seen.
  void* memory = reserve(kLeafBytes);
  if (memory == nullptr) std::abort();
  const Leaf made = static_cast<Leaf>(memory);
  for (uint64_t index = 0; index < count; index++) {
    if (entries[index] < 0) continue;
    const auto value = static_cast<uint64_t>(entries[index]);
    assert(value / 2 < kExtentLocationLimit);
    made[index].store(encode(Extent{true, true, value % 2 != 0, value / 2}), std::memory_order_relaxed);
  }
  mappedCounts_[leaf].store(mapped, std::memory_order_release);
  leaves_[leaf].store(made, std::memory_order_release);
  return true;
}

void ExtentTable::install(uint64_t block, const Extent& extent) {
  assert(block < blockCount() && extent.known && extent.location < kExtentLocationLimit);
  assert(extent.mapped || !extent.writable);
  const uint64_t leaf = block / kLeafBlocks;
  const std::lock_guard lock(changing_);
  const Leaf entries = leaves_[leaf].load(std::memory_order_relaxed);
  assert(entries != nullptr);
  if (entries == &nothing_) {
    if (!extent.mapped) return;
    makeLeaf(leaf);
  }
  store(leaf, block % kLeafBlocks, encode(extent));
  if (!extent.mapped) releaseIfEmpty(leaf);
}

void ExtentTable::clear(uint64_t block, uint64_t count) {
  assert(count > 0 && block < blockCount() && count <= blockCount() - block);
  const uint64_t end = block + count;
  const std::lock_guard lock(changing_);
  while (block < end) {
    const uint64_t leaf = block / kLeafBlocks;
    const uint64_t leafEnd = std::min((leaf + 1) * kLeafBlocks, end);
    const Leaf entries = leaves_[leaf].load(std::memory_order_relaxed);
    if (entries == nullptr) {
      assert(block % kLeafBlocks == 0 && (leafEnd % kLeafBlocks == 0 || leafEnd == blockCount()));
      leaves_[leaf].store(&nothing_, std::memory_order_release);
    } else if (mappedCounts_[leaf].load(std::memory_order_relaxed) != 0) {
      for (; block < leafEnd; block++) store(leaf, block % kLeafBlocks, 0);
      releaseIfEmpty(leaf);
    }
    block = leafEnd;
  }
}

void ExtentTable::raiseGeneration() {
  const uint32_t next = generation_.load(std::memory_order_relaxed) + 1;
  if (next < kGenerationLimit) {
    generation_.store(next, std::memory_order_release);
    return;
  }
  // From the beginning again: entries of generations long gone must not come to life.
  const std::lock_guard lock(changing_);
  const uint64_t leafCount = (blockCount() - 1) / kLeafBlocks + 1;
  for (uint64_t leaf = 0; leaf < leafCount; leaf++) {
    const Leaf entries = leaves_[leaf].load(std::memory_order_relaxed);
    if (!hasEntries(entries)) continue;
    for (uint64_t index = 0; index < kLeafBlocks; index++) {
      const uint64_t entry = entries[index].load(std::memory_order_relaxed);
      if (entry != 0) entries[index].store(kMapped | (entry & (kExtentLocationLimit - 1)), std::memory_order_release);
    }
  }
  generation_.store(0, std::memory_order_release);
}

void ExtentTable::resize(uint64_t sizeBytes) {
  assert(!isLinear() && sizeBytes > 0 && sizeBytes <= capacityBytes_);
  const std::lock_guard lock(changing_);
  const uint64_t before = blockCount();
  const uint64_t after = blocksOf(sizeBytes);
  const uint64_t leafCount = (after - 1) / kLeafBlocks + 1;
  for (uint64_t leaf = leafCount; leaf * kLeafBlocks < before; leaf++) {
    const Leaf entries = leaves_[leaf].exchange(nullptr, std::memory_order_acq_rel);
    if (hasEntries(entries)) ::munmap(entries, kLeafBytes);
    mappedCounts_[leaf].store(0, std::memory_order_relaxed);
  }
  if (after < before && hasEntries(leaves_[leafCount - 1].load(std::memory_order_relaxed))) {
    for (uint64_t block = after; block < std::min(before, leafCount * kLeafBlocks); block++) {
      store(leafCount - 1, block % kLeafBlocks, 0);
    }
    releaseIfEmpty(leafCount - 1);
  }
  sizeBytes_.store(sizeBytes, std::memory_order_release);
}

ExtentRun ExtentTable::runAt(uint64_t offset, uint64_t length) const {
  assert(length > 0 && offset < sizeBytes() && length <= sizeBytes() - offset);
  if (isLinear()) return ExtentRun{length, true, true, true, offset};
  const uint64_t block = offset >> blockShift_;
  const uint64_t within = offset & (blockBytes_ - 1);
  const uint64_t end = ((offset + length - 1) >> blockShift_) + 1;
  const uint32_t generation = generation_.load(std::memory_order_acquire);
  const Extent first = lookup(block);
  uint64_t at = block + 1;
  for (bool alike = true; alike && at < end;) {
    const uint64_t leafEnd = std::min((at / kLeafBlocks + 1) * kLeafBlocks, end);
    const Leaf leaf = leafOf(at);
    if (leaf == nullptr || !first.known) {
      alike = leaf == nullptr && !first.known;
      if (alike) at = leafEnd;
      continue;
    }
    if (leaf == &nothing_ || mappedCounts_[at / kLeafBlocks].load(std::memory_order_acquire) == 0) {
      alike = !first.mapped;
      if (alike) at = leafEnd;
      continue;
    }
    for (; at < leafEnd; at++) {
      const Extent other = decode(leaf[at % kLeafBlocks].load(std::memory_order_acquire), generation);
      alike = other.mapped == first.mapped && other.writable == first.writable &&
              (!first.mapped || other.location == first.location + (at - block));
      if (!alike) break;
    }
  }
  const uint64_t run = ((at - block) << blockShift_) - within;
  ExtentRun result{std::min(run, length), first.known, first.mapped, first.writable, 0};
  if (result.mapped) result.backingOffset = (first.location << blockShift_) + within;
  return result;
}

}  // namespace tidemark

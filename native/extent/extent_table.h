// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "../sys/result.h"

/**
 * Where each block of a volume is on its backing, and what may be done to it.
 *
 * Linear: block n lies at block n, mapped and writable, always; no memory, no fault ever.
 * Mapped: two levels. A *leaf* holds 4,096 blocks and is unknown until loadLeaf(); one without a mapped block takes no
 * memory, any other 32 KiB. Above it is one pointer a leaf, in anonymous memory that costs only the pages touched.
 *
 * An entry is writable only while its generation is the table's, so raiseGeneration() takes the writability of all
 * entries at once.
 *
 * Lookups are lock-free and may run beside changes: each entry is seen whole, old or new. Who takes writability away, or
 * moves a block, must first hold the block's range in the volume's RangeLock, so that no write with the old entry is in
 * flight. Loading a leaf needs no range: nobody reads or writes through a leaf that is not known.
 *
 * Lock `changing_` guards the making, filling and emptying of leaves.
 */
namespace tidemark {

/** Block index on the backing: the low 40 bits of an entry. */
constexpr uint64_t kExtentLocationLimit = uint64_t{1} << 40;
/** Blocks in a leaf. */
constexpr uint64_t kLeafBlocks = 4096;
/** Generations before they begin again at 0, which costs a walk over the loaded leaves. */
constexpr uint32_t kGenerationLimit = uint32_t{1} << 22;
/** What a mapped table can grow to, bytes, unless it is larger from the beginning. */
constexpr uint64_t kTableCapacityBytes = uint64_t{64} << 40;

struct Extent {
  /** False: ask (a `read-unknown` fault). The rest is then meaningless. */
  bool known = false;
  /** False: reads as zeros. */
  bool mapped = false;
  /** May be written in place. Only when mapped. */
  bool writable = false;
  uint64_t location = 0;

  bool operator==(const Extent&) const = default;
};

/** A stretch of a request that can be treated as one. */
struct ExtentRun {
  uint64_t length = 0;
  bool known = false;
  bool mapped = false;
  bool writable = false;
  /** Byte offset on the backing of the run's first byte; 0 unless mapped. */
  uint64_t backingOffset = 0;
};

class ExtentTable {
 public:
  static std::unique_ptr<ExtentTable> linear(uint64_t sizeBytes);
  /** `blockBytes`: a power of two, 512 or more. Errors: INVALID_ARGUMENT, NO_MEMORY. */
  static Result<std::unique_ptr<ExtentTable>> mapped(uint64_t sizeBytes, uint32_t blockBytes);
  ~ExtentTable();
  ExtentTable(const ExtentTable&) = delete;
  ExtentTable& operator=(const ExtentTable&) = delete;

  bool isLinear() const { return leaves_ == nullptr; }
  uint64_t sizeBytes() const { return sizeBytes_.load(std::memory_order_acquire); }
  /** 0 when linear. */
  uint32_t blockBytes() const { return blockBytes_; }
  uint64_t blockCount() const { return isLinear() ? 0 : blocksOf(sizeBytes()); }
  /** The largest size resize() takes. */
  uint64_t capacityBytes() const { return capacityBytes_; }

  // From here on mapped tables only; a `block` is below blockCount().

  /**
   * Grow or shrink, to `sizeBytes` from 1 to capacityBytes(). When it shrinks nobody else may use the table: what is cut
   * off is forgotten, and unknown should the table grow again; the rest of its last leaf reads as zeros.
   */
  void resize(uint64_t sizeBytes);

  Extent lookup(uint64_t block) const;
  bool isLoaded(uint64_t block) const { return leafOf(block) != nullptr; }

  /**
   * Say what a leaf holds. Entry n, of the leaf's nth block: -1 when it is not mapped, else `location * 2 + writable`;
   * those beyond the end of the volume do not count. No entries: nothing is mapped.
   * False: the leaf was loaded already and stays as it is, since it may have changed after what was asked was found out.
   */
  bool loadLeaf(uint64_t leaf, std::span<const int64_t> entries);
  /** Whole, at once, for every thread, and known; the block's leaf is loaded. `location` < kExtentLocationLimit. */
  void install(uint64_t block, const Extent& extent);
  /** Blocks read as zeros from here on. Leaves that lie wholly inside become loaded by it; the others are. */
  void clear(uint64_t block, uint64_t count);

  /** No entry is writable any more. Nobody may install, or write through the table, meanwhile. */
  void raiseGeneration();

  /**
   * The longest run from `offset`, up to `length` bytes (not 0, inside the volume), whose blocks are alike: same flags
   * and, when mapped, next to each other on the backing. Always at least one byte. A leaf that is unknown, or without a
   * mapped block, is passed over in one step.
   */
  ExtentRun runAt(uint64_t offset, uint64_t length) const;

 private:
  using Entry = std::atomic<uint64_t>;
  /** What leaves_ points to: null when unknown, `nothing_` when nothing is mapped there, else an array of kLeafBlocks. */
  using Leaf = Entry*;

  ExtentTable(uint64_t sizeBytes, uint32_t blockBytes) : sizeBytes_(sizeBytes), blockBytes_(blockBytes) {}
  uint64_t blocksOf(uint64_t sizeBytes) const { return ((sizeBytes - 1) >> blockShift_) + 1; }
  Leaf leafOf(uint64_t block) const { return leaves_[block / kLeafBlocks].load(std::memory_order_acquire); }
  bool hasEntries(Leaf leaf) const { return leaf != nullptr && leaf != &nothing_; }
  Extent decode(uint64_t entry, uint32_t generation) const;
  uint64_t encode(const Extent& extent) const;
  Leaf makeLeaf(uint64_t leaf);
  void store(uint64_t leaf, uint64_t index, uint64_t entry);
  void releaseIfEmpty(uint64_t leaf);

  std::atomic<uint64_t> sizeBytes_;
  const uint32_t blockBytes_;
  uint32_t blockShift_ = 0;
  uint64_t capacityBytes_ = 0;
  uint64_t leafCapacity_ = 0;
  std::atomic<uint32_t> generation_{0};
  /** Never read: its address says that a leaf holds nothing. */
  static inline Entry nothing_{0};
  std::atomic<Leaf>* leaves_ = nullptr;

  std::mutex changing_;
  /** Mapped blocks of each leaf. Changed with changing_ held. */
  std::atomic<uint32_t>* mappedCounts_ = nullptr;
};

}  // namespace tidemark

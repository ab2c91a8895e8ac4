// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "../sys/result.h"

/**
 * Where each block of a volume is on its backing, and what may be done to it.
 *
 * Linear: block n lies at block n, mapped and writable, always; no memory, no fault ever.
 * Mapped: one 64-bit entry a block in anonymous memory that costs only the pages touched (a 16 TiB volume of 64 KiB
 * blocks has 2 GiB of address space). Entries begin unknown.
 *
 * Lookups are lock-free and may run beside install(): each entry is seen whole, old or new. Who takes writability away
 * must first hold the block's range in the volume's RangeLock, so that no write with the old entry is in flight.
 */
namespace tidemark {

/** Block index on the backing: the low 48 bits of an entry. */
constexpr uint64_t kExtentLocationLimit = uint64_t{1} << 48;

struct Extent {
  /** False: ask (a `read-unknown` or `write` fault). The rest is then meaningless. */
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

  bool isLinear() const { return entries_ == nullptr; }
  uint64_t sizeBytes() const { return sizeBytes_; }
  /** 0 when linear. */
  uint32_t blockBytes() const { return blockBytes_; }
  uint64_t blockCount() const { return blockCount_; }

  /** `block` < blockCount(). Mapped tables only. */
  Extent lookup(uint64_t block) const;
  /** Whole, at once, for every thread. Mapped tables only; `location` < kExtentLocationLimit. */
  void install(uint64_t block, const Extent& extent);

  /**
   * The longest run from `offset`, up to `length` bytes (not 0, inside the volume), whose blocks are alike: same flags
   * and, when mapped, next to each other on the backing. Always at least one byte.
   */
  ExtentRun runAt(uint64_t offset, uint64_t length) const;

 private:
  ExtentTable(uint64_t sizeBytes, uint32_t blockBytes) : sizeBytes_(sizeBytes), blockBytes_(blockBytes) {}

  const uint64_t sizeBytes_;
  const uint32_t blockBytes_;
  uint32_t blockShift_ = 0;
  uint64_t blockCount_ = 0;
  std::atomic<uint64_t>* entries_ = nullptr;
  uint64_t entriesBytes_ = 0;
};

}  // namespace tidemark

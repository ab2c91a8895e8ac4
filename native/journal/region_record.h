// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../sys/result.h"
#include "../sys/unique_fd.h"
#include "region_format.h"

/**
 * Names, durably, the regions of a stream's volumes whose writes may not be everywhere yet: in the journal, on the
 * backing, at the far side. A write touches its regions after its place in the journal is given out (so that no
 * rotation falls between the two unseen) and before it reaches the backing; in steady state that is a look at one word.
 *
 * Two maps: `current`, which writes set, and `previous`, which rotate() adds to and drop() empties. Their union counts.
 * On disk a set bit is durable before touch() returns; a cleared one may come back after a power cut, which names more
 * than need be and never less.
 *
 * Lock `mutex_` guards all but the atomics. It is not held over writes to the file: `busy_` says whose turn that is.
 */
namespace tidemark {

struct RegionEvent {
  enum class Kind { kLimit, kFailed };
  Kind kind = Kind::kLimit;
  /** For kFailed: REGIONS_UNWRITABLE. */
  Error error;
};

struct RegionRecordOptions {
  /** Exists, whole, as src/journal/FORMAT.md says. */
  std::string path;
  std::array<uint8_t, 16> recordId{};
  uint64_t regionBytes = 0;
  /** By volume index: sizes. Each volume's regions begin at a multiple of 64. */
  std::vector<uint64_t> volumeBytes;
  /** That many regions in the current map raise kLimit, once until rotate(). Hosts do not wait for it. */
  uint64_t limitRegions = 0;
  /** On a thread that serves a write, without locks. Must not call back. */
  std::function<void(const RegionEvent&)> onEvent;
  /** Tests replace these to inject faults. */
  std::function<int(int fd)> fdatasync;
};

struct RegionCounters {
  uint64_t current = 0;
  uint64_t previous = 0;
  /** In either map. */
  uint64_t active = 0;
  uint64_t syncs = 0;
};

class RegionRecord {
 public:
  /** @error INVALID_ARGUMENT, REGIONS_UNREADABLE, REGIONS_DAMAGED (the header; a damaged page counts as all set) */
  static Result<std::unique_ptr<RegionRecord>> open(RegionRecordOptions options);

  /**
   * Returns when every region of the range is durably set in the current map. Callers at the same time share a sync.
   * After a failed write to the file it waits until giveUp(); from then on it returns at once.
   */
  void touch(uint16_t volume, uint64_t offset, uint64_t length);

  /**
   * What is in the current map goes into the previous one too, durably; then the current one is emptied, but for the
   * regions touched since the last rotation when `carry` is set. A write that saw a region in the map before that has
   * had its place in the journal given out before this returns.
   *
   * @error REGIONS_UNWRITABLE: nothing was emptied
   */
  Result<void> rotate(bool carry);
  /** Nothing in the previous map is needed any more. Not synced. */
  Result<void> drop();
  /** The record is worth nothing any more, and that is known: whoever waits goes on. */
  void giveUp();

  /** The regions in either map, as 64-bit words in order of regions. */
  std::vector<uint64_t> active() const;
  RegionCounters counters() const;

 private:
  struct Range {
    uint64_t first;
    uint64_t last;
  };
  struct Page {
    uint64_t number;
    RegionPage bytes;
  };

  explicit RegionRecord(RegionRecordOptions options);
  Result<void> load();
  Range rangeOf(uint16_t volume, uint64_t offset, uint64_t length) const;
  bool covered(const Range& range);
  void touchSlowly(uint16_t volume, Range range);
  bool mark(Range range);
  void markAhead(uint16_t volume, const Range& range);
  void dirty(uint64_t page);
  std::vector<Page> takeDirty();
  Result<void> writeDirty(std::unique_lock<std::mutex>& lock, bool sync);
  Result<void> endTurn(std::unique_lock<std::mutex>& lock);
  void fail(std::unique_lock<std::mutex>& lock, Error error);
  Result<void> takeTurn(std::unique_lock<std::mutex>& lock);

  const RegionRecordOptions options_;
  const uint32_t crcSeed_;
  UniqueFd file_;
  /** Of each volume, its first region; and one behind the last. */
  std::vector<uint64_t> firstRegion_;
  uint64_t wordCount_ = 0;
  uint64_t pageCount_ = 0;

  /** Durable in the current map. Bits are set by whoever has the turn, cleared by rotate(). */
  std::vector<std::atomic<uint64_t>> durable_;
  /** Touched since the last rotation. */
  std::vector<std::atomic<uint64_t>> used_;
  std::atomic<bool> givenUp_{false};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  /** As it shall be on disk. */
  std::vector<uint64_t> current_;
  std::vector<uint64_t> previous_;
  /** Pages of the file that differ from what is on disk: first those of the current map, then the previous one's. */
  std::vector<bool> isDirty_;
  std::vector<uint64_t> dirty_;
  uint64_t currentCount_ = 0;
  uint64_t syncs_ = 0;
  bool limitRaised_ = false;
  /** Somebody writes to the file. */
  bool busy_ = false;
  bool failed_ = false;
};

}  // namespace tidemark

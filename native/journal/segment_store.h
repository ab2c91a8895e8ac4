// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "../sys/result.h"
#include "../sys/shared_mapping.h"
#include "../sys/unique_fd.h"
#include "journal_format.h"

/**
 * The journal's segment files: made, recycled and synced away from the append path.
 *
 * Invariant: a segment has its final name only when its header, its length and its folder entry are durable and its
 * blocks are allocated and written, so that a store into the mapping cannot fail for want of space. It can fail with the
 * disk: then the segment is broken, which sync() says, and what was stored in it counts for nothing.
 *
 * A machine may have a thousand journals, most of them idle: one that was never appended to has no segment, one that is
 * appended to slowly has the open one, and one more from half of that on. Only what fills a segment within ten seconds
 * has `spareSegments` ready, and keeps as spares of what comes back with a trim as many as it needed since the one before, up
 * to a GiB and where there is room. Once it is not filled so fast any more, all spares but `spareSegments` are removed, one by
 * one; what nobody took for a minute is given back.
 *
 * Lock `mutex_` guards every list and counter below. It is never held over a system call that can wait for the disk,
 * and no other lock of the journal is taken under it.
 */
namespace tidemark {

/** What touches the disk, replaceable by tests. Each returns like the system call of its name. */
struct SegmentSystemCalls {
  std::function<int(int fd)> fdatasync;
  std::function<int(int fd, uint64_t lengthBytes)> allocate;
  std::function<int64_t(int fd, const void* bytes, uint64_t length, uint64_t offset)> pwrite;
  /** What is left on the file system of this folder. */
  std::function<uint64_t(int fd)> roomBytes;
};

/** A segment that is mapped, for appending or until it is durable. */
struct MappedSegment {
  uint64_t baseLsn;
  UniqueFd fd;
  std::unique_ptr<SharedMapping> mapping;

  uint8_t* memory() const { return mapping->memory(); }
  bool isBroken() const { return mapping->isBroken(); }
};

class SegmentStore {
 public:
  struct Options {
    std::string directory;
    JournalId journalId{};
    uint64_t segmentBytes = 0;
    uint32_t spareSegments = 1;
    uint64_t limitBytes = 0;
    std::chrono::milliseconds idle{60'000};
    SegmentSystemCalls system;
    /** No segment is left within the limit and a writer waits for one. Once until segments come back. */
    std::function<void()> onFull;
    /** A writer needs a segment and it cannot be made. Called once; the store makes no more. */
    std::function<void(Error)> onFailed;
  };

  explicit SegmentStore(Options options);
  ~SegmentStore();

  /**
   * Map the segment that holds startLsn, making it when absent; later ones become spares. Starts the preparer. Null where
   * startLsn is the first place of a segment that is not there: next() makes that one.
   */
  Result<MappedSegment*> open(uint64_t startLsn);

  /** More than half of the open segment is given out: the next one is made ready. Cheap when that was said before. */
  void wantAhead() {
    if (!ahead_.load(std::memory_order_relaxed)) askAhead();
  }

  /** The next segment, waiting for it; null once stopWaiting() was called. One caller at a time. */
  MappedSegment* next();
  /** Whoever waits in next(), and every later caller, gets null. */
  void stopWaiting();

  /** While set next() does not wait: null when no segment is ready. Unset, onFull tells anew of whoever waits, or will. */
  void refuseWaiting(bool refuse);

  /** fdatasync, in order, every mapped segment that holds a byte of [from, to). Fails for one that is broken. */
  Result<void> sync(uint64_t fromLsn, uint64_t toLsn);
  /** Unmap the segments wholly below: they are durable and nobody writes to them any more. */
  void retire(uint64_t belowLsn);
  /** Give the files wholly below back. */
  void trim(uint64_t belowLsn);
  /** End the preparer, unmap everything. */
  void close();

  uint64_t segmentCount() const;

  /** Of a segment that is broken. */
  Error brokenError(const MappedSegment& segment) const;

 private:
  Result<std::unique_ptr<MappedSegment>> prepare(uint64_t baseLsn, const std::string& spare);
  Result<std::unique_ptr<MappedSegment>> map(uint64_t baseLsn, UniqueFd fd, int populate);
  Result<void> writeAll(int fd, const void* bytes, uint64_t length, uint64_t offset);
  Result<void> writeHeader(int fd, uint64_t baseLsn);
  Result<void> checkHeader(const std::string& name, uint64_t baseLsn);
  Result<void> scan(uint64_t startBase);
  Result<void> syncDirectory();
  void prepareLoop();
  void askAhead();
  uint32_t wantedReady() const;
  uint64_t wantedSpares(bool hasRoom) const;
  void giveBack(std::unique_lock<std::mutex>& lock);
  std::string setAside(const std::string& name);
  std::string pathOf(const std::string& name) const;
  uint64_t fileCount() const;

  const Options options_;
  const uint64_t limitCount_;
  UniqueFd directory_;

  mutable std::mutex mutex_;
  /** Wakes the preparer. */
  std::condition_variable work_;
  /** Wakes the appender that waits in next(). */
  std::condition_variable made_;
  /** Segments with a final name, by base LSN: open, filled, and ready ones. */
  std::set<uint64_t> named_;
  /** Names of spare files, ready to be recycled. */
  std::vector<std::string> spares_;
  /** Trimmed: to be set aside as spares or unlinked by the preparer. */
  std::vector<uint64_t> trimmed_;
  /** Prepared, not yet appended to, in LSN order. */
  std::deque<std::unique_ptr<MappedSegment>> ready_;
  /** Appended to and not yet retired, in LSN order; the last one is open. */
  std::deque<std::unique_ptr<MappedSegment>> live_;
  uint64_t nextBase_ = 0;
  uint64_t spareNumber_ = 0;
  /** The next segment was asked for, since the open one was taken; set under mutex_, looked at without. */
  std::atomic<bool> ahead_{false};
  uint64_t takenSinceTrim_ = 0;
  uint64_t takenBetweenTrims_ = 0;
  /** The last segment was filled so fast that its successors must be there. */
  bool busy_ = false;
  std::chrono::steady_clock::time_point takenAt_ = std::chrono::steady_clock::now();
  bool waiting_ = false;
  bool fullRaised_ = false;
  bool refuseWaiting_ = false;
  bool failed_ = false;
  bool stopWaiting_ = false;
  bool stop_ = false;
  /** Preparing failed; not tried again before something changes (a writer waits, a trim). */
  bool backOff_ = false;

  std::thread preparer_;
};

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "extent_table.h"

/**
 * Requests that wait for a block, and what is asked about them.
 *
 * Each (block, kind) is raised once until it is answered: answering a second time could place one block twice. A grant
 * answers `read-unknown` always, `write` only when the table now says writable; a refusal answers both.
 *
 *     front end: park() ─► pending ─► onPending() ─► takeBatch() ─► TypeScript ─► install() in the table ─► granted()
 *                                                                              └─► refused()
 *
 * Entries are installed before granted() is called, and park() looks at the table again under the lock, so a grant that
 * comes between the lookup and park() is never missed.
 *
 * Lock `mutex_` guards everything. onPending runs without it.
 */
namespace tidemark {

/** Requests parked at once; park() waits beyond. */
constexpr uint32_t kParkedRequestLimit = 1024;
/** Faults handed over in one takeBatch(). */
constexpr uint32_t kFaultBatchLimit = 1024;

enum class FaultKind : uint8_t { kReadUnknown = 0, kWrite = 1 };

struct Fault {
  uint64_t block = 0;
  FaultKind kind = FaultKind::kReadUnknown;
  /** The waiting write covers the whole block: nothing needs to be copied. */
  bool wholeBlock = false;
};

/** Part of the front end's request: no allocation. Filled in by the queue. */
struct ParkedRequest {
  /** The request it is part of. */
  void* owner = nullptr;
  /** When resumed: 0, or the errno of the first refusal. */
  int errnoValue = 0;
  /** Blocks not yet answered. Guarded by the queue. */
  uint32_t waitingFor = 0;
};

class FaultQueue {
 public:
  /** `onPending` is called on the parking thread when faults are waiting to be taken and none were before. */
  FaultQueue(const ExtentTable& table, std::function<void()> onPending, uint32_t parkedLimit = kParkedRequestLimit);
  ~FaultQueue();
  FaultQueue(const FaultQueue&) = delete;
  FaultQueue& operator=(const FaultQueue&) = delete;

  /**
   * Wait, without holding up the thread, until all these faults are answered (all of a request's at once: one round trip).
   * True: parked; it will be handed back by granted(), refused() or close(), perhaps before this returns. False: the
   * table already has what is needed (look again), or the queue is closed (errnoValue is then ESHUTDOWN).
   *
   * Holds the calling thread while kParkedRequestLimit requests are parked.
   */
  bool park(ParkedRequest& request, std::span<const Fault> faults);

  /** Move up to kFaultBatchLimit raised faults, oldest first, to `batch` (appended). False: none are left after it. */
  bool takeBatch(std::vector<Fault>& batch);

  /** The table has these blocks' new entries. Appends the requests that wait for nothing more to `resume`. */
  void granted(std::span<const uint64_t> blocks, std::vector<ParkedRequest*>& resume);
  /** These blocks cannot be had: the requests that wait for them are handed back with `errnoValue`. */
  void refused(std::span<const uint64_t> blocks, int errnoValue, std::vector<ParkedRequest*>& resume);
  /** Hand every parked request back with ESHUTDOWN, take no more. */
  void close(std::vector<ParkedRequest*>& resume);

  /** Faults raised since the beginning. */
  uint64_t raisedCount() const;
  uint32_t parkedCount() const;

 private:
  struct Waiting {
    std::vector<ParkedRequest*> requests;
    /** Handed over by takeBatch(); before that it is also in pending_. */
    bool taken = false;
  };
  static uint64_t keyOf(uint64_t block, FaultKind kind) { return block << 1 | static_cast<uint64_t>(kind); }
  bool satisfied(uint64_t block, FaultKind kind) const;
  void answer(uint64_t block, FaultKind kind, int errnoValue, std::vector<ParkedRequest*>& resume);

  const ExtentTable& table_;
  const std::function<void()> onPending_;
  const uint32_t parkedLimit_;

  mutable std::mutex mutex_;
  std::condition_variable room_;
  std::unordered_map<uint64_t, Waiting> waiting_;
  std::vector<Fault> pending_;
  uint32_t parked_ = 0;
  uint64_t raised_ = 0;
  bool closed_ = false;
};

}  // namespace tidemark

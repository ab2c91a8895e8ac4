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
#include "given_places.h"

/**
 * Requests that wait for a block, and what is asked about them.
 *
 * Each (leaf, `read-unknown`) and (block, `write`) is raised once until it is answered: answering a second time could
 * place one block twice. An answer lets those go that the table now satisfies: a loaded leaf; a writable block, or for a
 * write that covers the whole block one with a place reserved for it. If any are left, the fault is *raised again*, so
 * nobody waits for an answer that has come and did not help.
 *
 *     front end: park() ─► pending ─► onPending() ─► takeBatch() ─► TypeScript ─► change the table ─► granted()
 *                             ▲                                                └─► refused()             │
 *                             └───────────────────── still not satisfied ────────────────────────────────┘
 *
 * The table is changed before granted() is called, and park() looks at the table again under the lock, so a grant that
 * comes between the lookup and park() is never missed.
 *
 * A fault says `wholeBlock` when every request that waits at the time it is taken covers the whole block. Who comes later
 * and covers less is left over by the answer, a reservation, and the fault raised again without it.
 *
 * What was asked may change before the answer comes: a trim, or a write to a reserved place. changed() notes that, and
 * expects() tells whoever carries the answer out that it was made from what is no longer true.
 *
 * Lock `mutex_` guards everything; that of the places is taken inside. onPending runs without it.
 */
namespace tidemark {

/** Requests parked at once; park() waits beyond. */
constexpr uint32_t kParkedRequestLimit = 1024;
/** Faults handed over in one takeBatch(). */
constexpr uint32_t kFaultBatchLimit = 1024;

enum class FaultKind : uint8_t { kReadUnknown = 0, kWrite = 1 };

struct Fault {
  /** The first of a leaf for `read-unknown`. */
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
  /** It was parked before: it never waits for room, since the thread that resumed it is the one that makes room. */
  bool again = false;
};

class FaultQueue {
 public:
  /**
   * `onPending` is called when faults are waiting to be taken and none were before, on the thread that parks or grants.
   * @param places null: the volume is not thin
   */
  FaultQueue(const ExtentTable& table, const GivenPlaces* places, std::function<void()> onPending,
             uint32_t parkedLimit = kParkedRequestLimit);
  ~FaultQueue();
  FaultQueue(const FaultQueue&) = delete;
  FaultQueue& operator=(const FaultQueue&) = delete;

  /**
   * Wait, without holding up the thread, until all these faults are answered (all of a request's at once: one round trip).
   * True: parked; it will be handed back by granted(), refused() or close(), perhaps before this returns. False: the
   * table already has what is needed (look again), or the queue is closed (errnoValue is then ESHUTDOWN).
   *
   * Holds the calling thread while kParkedRequestLimit requests are parked, unless the request was parked before.
   */
  bool park(ParkedRequest& request, std::span<const Fault> faults);

  /** Move up to kFaultBatchLimit raised faults, oldest first, to `batch` (appended). False: none are left after it. */
  bool takeBatch(std::vector<Fault>& batch);

  /**
   * The table says what it will about these blocks (the first of a leaf stands for the leaf too). Appends the requests
   * that wait for nothing more to `resume`; raises again what was taken and is still not satisfied.
   */
  void granted(std::span<const uint64_t> blocks, std::vector<ParkedRequest*>& resume);
  /** These blocks cannot be had: the requests that wait for them are handed back with `errnoValue`. */
  void refused(std::span<const uint64_t> blocks, int errnoValue, std::vector<ParkedRequest*>& resume);
  /** Hand every parked request back with ESHUTDOWN, take no more. */
  void close(std::vector<ParkedRequest*>& resume);

  /**
   * What the table says about these blocks was changed by somebody else than an answer. Call it with their ranges still
   * locked, after what happened can be seen by whoever answers.
   */
  void changed(uint64_t block, uint64_t count);
  /** Whether a `write` fault was taken for this block and nothing changed since it was raised. With the range locked. */
  bool expects(uint64_t block) const;

  /** Faults raised since the beginning. */
  uint64_t raisedCount() const;
  uint32_t parkedCount() const;

 private:
  struct Waiter {
    ParkedRequest* request;
    bool wholeBlock;
  };
  struct Waiting {
    std::vector<Waiter> waiters;
    /** Handed over by takeBatch(); before that it is also in pending_. */
    bool taken = false;
    /** See changed(). */
    bool changed = false;
  };
  struct Raised {
    uint64_t block;
    FaultKind kind;
  };
  static uint64_t keyOf(uint64_t block, FaultKind kind) { return block << 1 | static_cast<uint64_t>(kind); }
  bool satisfied(uint64_t block, FaultKind kind, bool wholeBlock) const;
  void letGo(ParkedRequest* request, int errnoValue, std::vector<ParkedRequest*>& resume);
  void forget(uint64_t block, FaultKind kind);
  void lookAgain(uint64_t block, FaultKind kind, std::vector<ParkedRequest*>& resume);
  void refuse(uint64_t block, FaultKind kind, int errnoValue, std::vector<ParkedRequest*>& resume);

  const ExtentTable& table_;
  const GivenPlaces* const places_;
  const std::function<void()> onPending_;
  const uint32_t parkedLimit_;

  mutable std::mutex mutex_;
  std::condition_variable room_;
  std::unordered_map<uint64_t, Waiting> waiting_;
  std::vector<Raised> pending_;
  uint32_t parked_ = 0;
  uint64_t raised_ = 0;
  bool closed_ = false;
};

}  // namespace tidemark

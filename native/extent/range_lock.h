// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

/**
 * Orders overlapping writes in flight: first come, first served, while those that do not overlap run in parallel.
 *
 * A ticket lives in the caller's request (no allocation), in one list in order of arrival. It is granted when no earlier
 * ticket in the list overlaps it, so a lock over [0, UINT64_MAX) is a barrier: it waits for all before it and holds up
 * all after it.
 *
 * The cost is linear in the tickets held or waiting: a few hundred at the most (one for each request in flight).
 *
 * Lock `mutex_` guards the list and the fields of every ticket in it. resume functions run without it.
 */
namespace tidemark {

class RangeLock {
 public:
  class Ticket {
   public:
    Ticket() = default;
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

    /** The request that owns the ticket, for resume functions. */
    void* owner = nullptr;

   private:
    friend class RangeLock;
    uint64_t begin_ = 0;
    uint64_t end_ = 0;
    /** Earlier tickets that overlap and are still in the list; 0 is granted. */
    uint32_t blockers_ = 0;
    bool listed_ = false;
    void (*resume_)(Ticket&) = nullptr;
    Ticket* before_ = nullptr;
    Ticket* after_ = nullptr;
    Ticket* nextGranted_ = nullptr;
  };

  RangeLock() = default;
  ~RangeLock();
  RangeLock(const RangeLock&) = delete;
  RangeLock& operator=(const RangeLock&) = delete;

  /** Wait until granted. `length` is not 0. */
  void lock(Ticket& ticket, uint64_t offset, uint64_t length);

  /**
   * True: granted now. False: queued; `resume(ticket)` is called once, later, when it is granted, on the thread whose
   * unlock() granted it and without the lock held. It may be called before this returns on another thread.
   */
  bool lockOrQueue(Ticket& ticket, uint64_t offset, uint64_t length, void (*resume)(Ticket&));

  /** Let go of a granted ticket; grants, and resumes, those it held up. The ticket can be used again. */
  void unlock(Ticket& ticket);

  /** Tickets held or waiting. */
  uint32_t count() const;

 private:
  bool enqueue(Ticket& ticket, uint64_t offset, uint64_t length, void (*resume)(Ticket&));

  mutable std::mutex mutex_;
  std::condition_variable granted_;
  Ticket* first_ = nullptr;
  Ticket* last_ = nullptr;
  uint32_t count_ = 0;
  uint32_t blockedThreads_ = 0;
};

/** Holds a range for a scope. */
class RangeGuard {
 public:
  RangeGuard(RangeLock& lock, uint64_t offset, uint64_t length) : lock_(lock) { lock_.lock(ticket_, offset, length); }
  ~RangeGuard() { lock_.unlock(ticket_); }
  RangeGuard(const RangeGuard&) = delete;
  RangeGuard& operator=(const RangeGuard&) = delete;

 private:
  RangeLock& lock_;
  RangeLock::Ticket ticket_;
};

}  // namespace tidemark

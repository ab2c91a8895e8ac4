// SPDX-License-Identifier: Apache-2.0
#include "range_lock.h"

#include <cassert>

namespace tidemark {

RangeLock::~RangeLock() { assert(first_ == nullptr); }

/** With mutex_ held. True when nothing holds the ticket up. */
bool RangeLock::enqueue(Ticket& ticket, uint64_t offset, uint64_t length, void (*resume)(Ticket&)) {
  assert(!ticket.listed_ && length > 0 && offset <= UINT64_MAX - length);
  ticket.begin_ = offset;
  ticket.end_ = offset + length;
  ticket.resume_ = resume;
  ticket.listed_ = true;
  uint32_t blockers = 0;
  for (const Ticket* other = first_; other != nullptr; other = other->after_) {
    if (other->begin_ < ticket.end_ && ticket.begin_ < other->end_) ++blockers;
  }
  ticket.blockers_ = blockers;
  ticket.before_ = last_;
  ticket.after_ = nullptr;
  (last_ != nullptr ? last_->after_ : first_) = &ticket;
  last_ = &ticket;
  ++count_;
  return blockers == 0;
}

void RangeLock::lock(Ticket& ticket, uint64_t offset, uint64_t length) {
  std::unique_lock lock(mutex_);
  if (enqueue(ticket, offset, length, nullptr)) return;
  ++blockedThreads_;
  granted_.wait(lock, [&ticket] { return ticket.blockers_ == 0; });
  --blockedThreads_;
}

bool RangeLock::lockOrQueue(Ticket& ticket, uint64_t offset, uint64_t length, void (*resume)(Ticket&)) {
  assert(resume != nullptr);
  std::lock_guard lock(mutex_);
  return enqueue(ticket, offset, length, resume);
}

void RangeLock::unlock(Ticket& ticket) {
  Ticket* granted = nullptr;
  bool wakeThreads = false;
  {
    std::lock_guard lock(mutex_);
    assert(ticket.listed_ && ticket.blockers_ == 0);
    (ticket.before_ != nullptr ? ticket.before_->after_ : first_) = ticket.after_;
    (ticket.after_ != nullptr ? ticket.after_->before_ : last_) = ticket.before_;
    ticket.listed_ = false;
    --count_;
    Ticket** end = &granted;
    for (Ticket* other = ticket.after_; other != nullptr; other = other->after_) {
      const bool overlaps = other->begin_ < ticket.end_ && ticket.begin_ < other->end_;
      if (!overlaps || --other->blockers_ != 0) continue;
      if (other->resume_ == nullptr) {
        wakeThreads = true;
        continue;
      }
      other->nextGranted_ = nullptr;
      *end = other;
      end = &other->nextGranted_;
    }
    wakeThreads = wakeThreads && blockedThreads_ > 0;
  }
  if (wakeThreads) granted_.notify_all();
  while (granted != nullptr) {
    // Read first: a resumed ticket may be let go of, and used again, before the call returns.
    Ticket* next = granted->nextGranted_;
    granted->resume_(*granted);
    granted = next;
  }
}

uint32_t RangeLock::count() const {
  std::lock_guard lock(mutex_);
  return count_;
}

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#include "fault_queue.h"

#include <algorithm>
#include <cassert>
#include <cerrno>

namespace tidemark {
namespace {

/** changed() looks up so many blocks one by one, and for more goes through what is waiting. */
constexpr uint64_t kLookupLimit = 64;

}  // namespace

FaultQueue::FaultQueue(const ExtentTable& table, const GivenPlaces* places, std::function<void()> onPending,
                       uint32_t parkedLimit)
    : table_(table), places_(places), onPending_(std::move(onPending)), parkedLimit_(parkedLimit) {
  assert(parkedLimit_ > 0);
}

FaultQueue::~FaultQueue() { assert(parked_ == 0); }

/** With mutex_ held. */
bool FaultQueue::satisfied(uint64_t block, FaultKind kind, bool wholeBlock) const {
  if (table_.isLinear()) return true;
  if (kind == FaultKind::kReadUnknown) return table_.isLoaded(block);
  if (table_.lookup(block).writable) return true;
  return wholeBlock && places_ != nullptr && places_->reserved(block).has_value();
}

bool FaultQueue::park(ParkedRequest& request, std::span<const Fault> faults) {
  bool first = false;
  {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [this, &request] { return parked_ < parkedLimit_ || request.again || closed_; });
    request.errnoValue = closed_ ? ESHUTDOWN : 0;
    request.waitingFor = 0;
    if (closed_) return false;
    request.again = true;
    first = pending_.empty();
    for (const Fault& fault : faults) {
      if (satisfied(fault.block, fault.kind, fault.wholeBlock)) continue;
      auto [entry, fresh] = waiting_.try_emplace(keyOf(fault.block, fault.kind));
      entry->second.waiters.push_back(Waiter{&request, fault.wholeBlock});
      ++request.waitingFor;
      if (!fresh) continue;
      pending_.push_back(Raised{fault.block, fault.kind});
      ++raised_;
    }
    if (request.waitingFor == 0) return false;
    ++parked_;
    first = first && !pending_.empty();
  }
  if (first) onPending_();
  return true;
}

bool FaultQueue::takeBatch(std::vector<Fault>& batch) {
  std::lock_guard lock(mutex_);
  const auto end = pending_.begin() + static_cast<ptrdiff_t>(std::min<size_t>(pending_.size(), kFaultBatchLimit));
  for (auto raised = pending_.begin(); raised != end; ++raised) {
    Waiting& waiting = waiting_.at(keyOf(raised->block, raised->kind));
    waiting.taken = true;
    const bool wholeBlock = std::all_of(waiting.waiters.begin(), waiting.waiters.end(),
                                        [](const Waiter& waiter) { return waiter.wholeBlock; });
    batch.push_back(Fault{raised->block, raised->kind, wholeBlock});
  }
  pending_.erase(pending_.begin(), end);
  return !pending_.empty();
}

/** With mutex_ held. */
void FaultQueue::letGo(ParkedRequest* request, int errnoValue, std::vector<ParkedRequest*>& resume) {
  if (request->errnoValue == 0) request->errnoValue = errnoValue;
  if (--request->waitingFor != 0) return;
  resume.push_back(request);
  --parked_;
}

/** With mutex_ held. Answered before anybody asked: nothing is to be asked any more. */
void FaultQueue::forget(uint64_t block, FaultKind kind) {
  std::erase_if(pending_, [block, kind](const Raised& raised) { return raised.block == block && raised.kind == kind; });
}

/** With mutex_ held. */
void FaultQueue::lookAgain(uint64_t block, FaultKind kind, std::vector<ParkedRequest*>& resume) {
  const auto entry = waiting_.find(keyOf(block, kind));
  if (entry == waiting_.end()) return;
  Waiting& waiting = entry->second;
  std::erase_if(waiting.waiters, [&](const Waiter& waiter) {
    if (!satisfied(block, kind, waiter.wholeBlock)) return false;
    letGo(waiter.request, 0, resume);
    return true;
  });
  if (waiting.waiters.empty()) {
    if (!waiting.taken) forget(block, kind);
    waiting_.erase(entry);
  } else if (waiting.taken) {
    waiting.taken = false;
    waiting.changed = false;
    pending_.push_back(Raised{block, kind});
    ++raised_;
  }
}

void FaultQueue::granted(std::span<const uint64_t> blocks, std::vector<ParkedRequest*>& resume) {
  bool first = false;
  {
    std::lock_guard lock(mutex_);
    first = pending_.empty();
    for (const uint64_t block : blocks) {
      lookAgain(block, FaultKind::kReadUnknown, resume);
      lookAgain(block, FaultKind::kWrite, resume);
    }
    first = first && !pending_.empty();
  }
  room_.notify_all();
  if (first) onPending_();
}

/** With mutex_ held. */
void FaultQueue::refuse(uint64_t block, FaultKind kind, int errnoValue, std::vector<ParkedRequest*>& resume) {
  const auto entry = waiting_.find(keyOf(block, kind));
  if (entry == waiting_.end()) return;
  for (const Waiter& waiter : entry->second.waiters) letGo(waiter.request, errnoValue, resume);
  if (!entry->second.taken) forget(block, kind);
  waiting_.erase(entry);
}

void FaultQueue::refused(std::span<const uint64_t> blocks, int errnoValue, std::vector<ParkedRequest*>& resume) {
  assert(errnoValue != 0);
  {
    std::lock_guard lock(mutex_);
    for (const uint64_t block : blocks) {
      refuse(block, FaultKind::kReadUnknown, errnoValue, resume);
      refuse(block, FaultKind::kWrite, errnoValue, resume);
    }
  }
  room_.notify_all();
}

void FaultQueue::close(std::vector<ParkedRequest*>& resume) {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    for (auto& [key, waiting] : waiting_) {
      for (const Waiter& waiter : waiting.waiters) letGo(waiter.request, ESHUTDOWN, resume);
    }
    waiting_.clear();
    pending_.clear();
  }
  room_.notify_all();
}

void FaultQueue::changed(uint64_t block, uint64_t count) {
  std::lock_guard lock(mutex_);
  if (waiting_.empty()) return;
  if (count <= kLookupLimit) {
    for (uint64_t index = 0; index < count; index++) {
      const auto entry = waiting_.find(keyOf(block + index, FaultKind::kWrite));
      if (entry != waiting_.end()) entry->second.changed = true;
    }
    return;
  }
  for (auto& [key, waiting] : waiting_) {
    if (key >> 1 >= block && key >> 1 < block + count) waiting.changed = true;
  }
}

bool FaultQueue::expects(uint64_t block) const {
  std::lock_guard lock(mutex_);
  const auto entry = waiting_.find(keyOf(block, FaultKind::kWrite));
  return entry != waiting_.end() && entry->second.taken && !entry->second.changed;
}

uint64_t FaultQueue::raisedCount() const {
  std::lock_guard lock(mutex_);
  return raised_;
}

uint32_t FaultQueue::parkedCount() const {
  std::lock_guard lock(mutex_);
  return parked_;
}

}  // namespace tidemark

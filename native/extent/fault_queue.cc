// SPDX-License-Identifier: Apache-2.0
#include "fault_queue.h"

#include <algorithm>
#include <cassert>
#include <cerrno>

namespace tidemark {

FaultQueue::FaultQueue(const ExtentTable& table, std::function<void()> onPending, uint32_t parkedLimit)
    : table_(table), onPending_(std::move(onPending)), parkedLimit_(parkedLimit) {
  assert(parkedLimit_ > 0);
}

FaultQueue::~FaultQueue() { assert(parked_ == 0); }

/** With mutex_ held. */
bool FaultQueue::satisfied(uint64_t block, FaultKind kind) const {
  if (table_.isLinear()) return true;
  const Extent extent = table_.lookup(block);
  return extent.known && (kind == FaultKind::kReadUnknown || extent.writable);
}

bool FaultQueue::park(ParkedRequest& request, std::span<const Fault> faults) {
  bool first = false;
  {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [this] { return parked_ < parkedLimit_ || closed_; });
    request.errnoValue = closed_ ? ESHUTDOWN : 0;
    request.waitingFor = 0;
    if (closed_) return false;
    first = pending_.empty();
    for (const Fault& fault : faults) {
      if (satisfied(fault.block, fault.kind)) continue;
      auto [entry, fresh] = waiting_.try_emplace(keyOf(fault.block, fault.kind));
      entry->second.requests.push_back(&request);
      ++request.waitingFor;
      if (!fresh) continue;
      pending_.push_back(fault);
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
  for (auto fault = pending_.begin(); fault != end; ++fault) {
    waiting_.at(keyOf(fault->block, fault->kind)).taken = true;
    batch.push_back(*fault);
  }
  pending_.erase(pending_.begin(), end);
  return !pending_.empty();
}

/** With mutex_ held. */
void FaultQueue::answer(uint64_t block, FaultKind kind, int errnoValue, std::vector<ParkedRequest*>& resume) {
  const auto entry = waiting_.find(keyOf(block, kind));
  if (entry == waiting_.end()) return;
  for (ParkedRequest* request : entry->second.requests) {
    if (request->errnoValue == 0) request->errnoValue = errnoValue;
    if (--request->waitingFor != 0) continue;
    resume.push_back(request);
    --parked_;
  }
  const bool taken = entry->second.taken;
  waiting_.erase(entry);
  if (taken) return;
  // Answered before anybody asked: nothing is to be asked any more.
  std::erase_if(pending_, [block, kind](const Fault& fault) { return fault.block == block && fault.kind == kind; });
}

void FaultQueue::granted(std::span<const uint64_t> blocks, std::vector<ParkedRequest*>& resume) {
  {
    std::lock_guard lock(mutex_);
    for (const uint64_t block : blocks) {
      for (const FaultKind kind : {FaultKind::kReadUnknown, FaultKind::kWrite}) {
        if (satisfied(block, kind)) answer(block, kind, 0, resume);
      }
    }
  }
  room_.notify_all();
}

void FaultQueue::refused(std::span<const uint64_t> blocks, int errnoValue, std::vector<ParkedRequest*>& resume) {
  assert(errnoValue != 0);
  {
    std::lock_guard lock(mutex_);
    for (const uint64_t block : blocks) {
      answer(block, FaultKind::kReadUnknown, errnoValue, resume);
      answer(block, FaultKind::kWrite, errnoValue, resume);
    }
  }
  room_.notify_all();
}

void FaultQueue::close(std::vector<ParkedRequest*>& resume) {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    for (auto& [key, waiting] : waiting_) {
      for (ParkedRequest* request : waiting.requests) {
        if (request->errnoValue == 0) request->errnoValue = ESHUTDOWN;
        if (--request->waitingFor != 0) continue;
        resume.push_back(request);
        --parked_;
      }
    }
    waiting_.clear();
    pending_.clear();
  }
  room_.notify_all();
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

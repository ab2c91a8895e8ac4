// SPDX-License-Identifier: Apache-2.0
#include "grant_worker.h"

#include <pthread.h>

#include <algorithm>
#include <cstdio>

#include "../sys/process_memory.h"
#include "../sys/signals_blocked.h"
#include "mapped_io.h"

namespace tidemark {

GrantWorker::GrantWorker(const std::string& name, ExtentTable& table, Backing& backing, RangeLock& locks,
                         FaultQueue& faults, ThinLayer* thin, std::atomic<uint64_t>& copiedBytes, Resume resume)
    : table_(table),
      backing_(backing),
      locks_(locks),
      faults_(faults),
      thin_(thin),
      copiedBytes_(copiedBytes),
      resume_(std::move(resume)) {
  const SignalsBlocked blocked;
  thread_ = std::thread([this, name] {
    char title[16];
    std::snprintf(title, sizeof title, "tmg %s", name.c_str());
    pthread_setname_np(pthread_self(), title);
    protectThread();
    run();
  });
}

GrantWorker::~GrantWorker() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wanted_.notify_one();
  thread_.join();
}

Result<void> GrantWorker::grant(std::vector<Grant> grants) {
  for (const Grant& grant : grants) {
    const char* mistake = nullptr;
    if (grant.block >= table_.blockCount() || grant.location >= kExtentLocationLimit) {
      mistake = "is out of range";
    } else if (thin_ != nullptr && !(grant.mapped && grant.writable)) {
      mistake = "gives no place to write, which a thin volume does not take";
    } else if (thin_ == nullptr && (grant.reserve || grant.known)) {
      mistake = "is for a thin volume";
    }
    if (mistake == nullptr) continue;
    return Error{"INVALID_ARGUMENT", EINVAL, "the grant for block " + std::to_string(grant.block) + " " + mistake};
  }
  Task task;
  task.grants = std::move(grants);
  const std::lock_guard lock(mutex_);
  return pushLocked(std::move(task));
}

Result<void> GrantWorker::loadLeaf(uint64_t leaf, std::vector<int64_t> entries) {
  bool inRange = leaf <= (table_.blockCount() - 1) / kLeafBlocks && (entries.empty() || entries.size() == kLeafBlocks);
  for (const int64_t entry : entries) {
    inRange = inRange && entry >= -1 && entry / 2 < static_cast<int64_t>(kExtentLocationLimit);
  }
  if (!inRange) return Error{"INVALID_ARGUMENT", EINVAL, "leaf " + std::to_string(leaf) + " is out of range"};
  const std::lock_guard lock(mutex_);
  if (holding_) {
    for (int64_t& entry : entries) {
      if (entry >= 0) entry &= ~int64_t{1};
    }
  }
  table_.loadLeaf(leaf, entries);
  Task task;
  task.changed.push_back(leaf * kLeafBlocks);
  // Never refused: the leaf is loaded, and those who wait for it must hear so.
  enqueueLocked(std::move(task));
  return {};
}

Result<void> GrantWorker::refuse(std::vector<uint64_t> blocks, int errnoValue) {
  Task task;
  task.refused = std::move(blocks);
  task.errnoValue = errnoValue;
  const std::lock_guard lock(mutex_);
  return pushLocked(std::move(task));
}

Result<void> GrantWorker::pushLocked(Task task) {
  if (waiting_ + task.size() > kGrantLimit) {
    return Error{"TOO_MANY_GRANTS", EAGAIN, "grants come faster than they are carried out"};
  }
  enqueueLocked(std::move(task));
  return {};
}

void GrantWorker::enqueueLocked(Task task) {
  waiting_ += task.size();
  if (holding_) {
    held_.push_back(std::move(task));
    return;
  }
  tasks_.push_back(std::move(task));
  wanted_.notify_one();
}

bool GrantWorker::hold() {
  const std::lock_guard lock(mutex_);
  if (holding_) return false;
  holding_ = true;
  return true;
}

void GrantWorker::waitIdle() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return tasks_.empty() && !busy_; });
}

std::vector<GivenPlace> GrantWorker::release(bool discarding) {
  std::vector<GivenPlace> places;
  const std::lock_guard lock(mutex_);
  for (Task& task : held_) {
    if (discarding) {
      for (const Grant& grant : task.grants) {
        if (!grant.known) places.push_back(GivenPlace{grant.block, grant.location});
        task.changed.push_back(grant.block);
      }
      task.grants.clear();
    }
    tasks_.push_back(std::move(task));
  }
  held_.clear();
  holding_ = false;
  wanted_.notify_one();
  return places;
}

void GrantWorker::run() {
  for (;;) {
    Task task;
    {
      std::unique_lock lock(mutex_);
      busy_ = false;
      if (tasks_.empty()) idle_.notify_all();
      wanted_.wait(lock, [this] { return stop_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
      waiting_ -= task.size();
      busy_ = true;
    }
    carryOut(task);
  }
}

void GrantWorker::carryOut(const Task& task) {
  std::vector<ParkedRequest*> resumed;
  std::vector<uint64_t> changed = task.changed;
  changed.reserve(changed.size() + task.grants.size());
  for (const Grant& grant : task.grants) {
    const int failed = thin_ != nullptr ? installThin(grant) : install(grant);
    if (failed == 0) {
      changed.push_back(grant.block);
    } else {
      faults_.refused(std::span(&grant.block, 1), failed, resumed);
    }
  }
  if (!changed.empty()) faults_.granted(changed, resumed);
  if (!task.refused.empty()) faults_.refused(task.refused, task.errnoValue, resumed);
  for (ParkedRequest* request : resumed) resume_(*request);
}

int GrantWorker::install(const Grant& grant) {
  // The volume may be smaller than when it was given; then nobody waits for it.
  if (grant.block >= table_.blockCount()) return 0;
  const uint64_t begin = grant.block * table_.blockBytes();
  const uint64_t length = std::min<uint64_t>(table_.blockBytes(), table_.sizeBytes() - begin);
  const RangeGuard guard(locks_, begin, length);
  if (!table_.isLoaded(grant.block)) return 0;
  const bool copies = grant.mapped && grant.copyFrom != Grant::noCopy &&
                      grant.copyFrom != static_cast<int64_t>(grant.location);
  if (copies) {
    const int failed = copyBlock(table_, backing_, grant.location, grant.copyFrom, length);
    if (failed != 0) return failed;
    copiedBytes_.fetch_add(length, std::memory_order_relaxed);
  }
  table_.install(grant.block, Extent{true, grant.mapped, grant.mapped && grant.writable,
                                     grant.mapped ? grant.location : 0});
  return 0;
}

/** The place is filled as a whole, also where the volume ends inside the block: it may grow. */
int GrantWorker::installThin(const Grant& grant) {
  const uint64_t blockBytes = table_.blockBytes();
  const RangeGuard guard(locks_, grant.block * blockBytes, blockBytes);
  GivenPlaces& places = thin_->places;
  if (!grant.known) places.give(grant.block, grant.location);
  if (grant.block >= table_.blockCount() || !table_.isLoaded(grant.block)) return 0;
  if (table_.lookup(grant.block).writable || !faults_.expects(grant.block)) return 0;
  if (!grant.known) {
    places.setReserved(grant.block, grant.reserve);
    if (grant.reserve) return 0;
    int64_t copyFrom = grant.copyFrom;
    if (copyFrom == Grant::noCopy && places.isTouched(grant.block)) copyFrom = -1;
    if (copyFrom != Grant::noCopy && copyFrom != static_cast<int64_t>(grant.location)) {
      places.touch(grant.block);
      const int failed = copyBlock(table_, backing_, grant.location, copyFrom, blockBytes);
      if (failed != 0) return failed;
      copiedBytes_.fetch_add(blockBytes, std::memory_order_relaxed);
    }
    const int failed = thin_->pool->publishMap(thin_->layer, grant.block, grant.location);
    if (failed != 0) return failed;
    places.published(grant.block);
  }
  table_.install(grant.block, Extent{true, true, true, grant.location});
  return 0;
}

}  // namespace tidemark

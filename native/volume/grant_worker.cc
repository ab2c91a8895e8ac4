// SPDX-License-Identifier: Apache-2.0
#include "grant_worker.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>

#include "mapped_io.h"

namespace tidemark {

GrantWorker::GrantWorker(const std::string& name, ExtentTable& table, Backing& backing, RangeLock& locks,
                         FaultQueue& faults, Resume resume)
    : table_(table), backing_(backing), locks_(locks), faults_(faults), resume_(std::move(resume)) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this, name] {
    char title[16];
    std::snprintf(title, sizeof title, "tmg %s", name.c_str());
    pthread_setname_np(pthread_self(), title);
    run();
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
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
    if (grant.block >= table_.blockCount() || grant.location >= kExtentLocationLimit) {
      return Error{"INVALID_ARGUMENT", EINVAL, "grant for block " + std::to_string(grant.block) + " is out of range"};
    }
  }
  Task task;
  task.grants = std::move(grants);
  return push(std::move(task));
}

Result<void> GrantWorker::refuse(std::vector<uint64_t> blocks, int errnoValue) {
  Task task;
  task.refused = std::move(blocks);
  task.errnoValue = errnoValue;
  return push(std::move(task));
}

Result<void> GrantWorker::push(Task task) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_ + task.size() > kGrantLimit) {
      return Error{"TOO_MANY_GRANTS", EAGAIN, "grants come faster than they are carried out"};
    }
    waiting_ += task.size();
    tasks_.push_back(std::move(task));
  }
  wanted_.notify_one();
  return {};
}

void GrantWorker::run() {
  for (;;) {
    Task task;
    {
      std::unique_lock lock(mutex_);
      wanted_.wait(lock, [this] { return stop_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
      waiting_ -= task.size();
    }
    carryOut(task);
  }
}

void GrantWorker::carryOut(const Task& task) {
  std::vector<ParkedRequest*> resumed;
  std::vector<uint64_t> granted;
  granted.reserve(task.grants.size());
  for (const Grant& grant : task.grants) {
    const int failed = install(grant);
    if (failed == 0) {
      granted.push_back(grant.block);
    } else {
      faults_.refused(std::span(&grant.block, 1), failed, resumed);
    }
  }
  if (!granted.empty()) faults_.granted(granted, resumed);
  if (!task.refused.empty()) faults_.refused(task.refused, task.errnoValue, resumed);
  for (ParkedRequest* request : resumed) resume_(*request);
}

int GrantWorker::install(const Grant& grant) {
  const uint64_t begin = grant.block * table_.blockBytes();
  const uint64_t length = std::min<uint64_t>(table_.blockBytes(), table_.sizeBytes() - begin);
  const RangeGuard guard(locks_, begin, length);
  const bool copies = grant.mapped && grant.copyFrom != Grant::noCopy &&
                      grant.copyFrom != static_cast<int64_t>(grant.location);
  if (copies) {
    const int failed = copyBlock(table_, backing_, grant.location, grant.copyFrom, length);
    if (failed != 0) return failed;
  }
  table_.install(grant.block, Extent{true, grant.mapped, grant.mapped && grant.writable,
                                     grant.mapped ? grant.location : 0});
  return 0;
}

}  // namespace tidemark

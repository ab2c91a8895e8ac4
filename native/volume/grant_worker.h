// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../device/backing.h"
#include "../extent/extent_table.h"
#include "../extent/fault_queue.h"
#include "../extent/range_lock.h"

namespace tidemark {

/** Answers that wait to be carried out, over all. */
constexpr size_t kGrantLimit = 1 << 20;

/** The answer to a fault; also sent unasked, to tell the table what is known or may no longer be written. */
struct Grant {
  /** No copying; `copyFrom` otherwise is a block of the backing, or -1 for zeros. */
  static constexpr int64_t noCopy = -2;

  uint64_t block = 0;
  uint64_t location = 0;
  bool mapped = false;
  bool writable = false;
  int64_t copyFrom = noCopy;
};

/**
 * Carries out grants and refusals in the order they were given, on one thread, and runs what they let go.
 *
 * A block is copied and its entry installed while the block's whole range is locked: nobody sees a copy half done, and
 * no write with the old entry is in flight afterwards.
 */
class GrantWorker {
 public:
  using Resume = std::function<void(ParkedRequest&)>;

  GrantWorker(const std::string& name, ExtentTable& table, Backing& backing, RangeLock& locks, FaultQueue& faults,
              Resume resume);
  /** Carries out what was given before, then ends the thread. */
  ~GrantWorker();
  GrantWorker(const GrantWorker&) = delete;
  GrantWorker& operator=(const GrantWorker&) = delete;

  /** @error TOO_MANY_GRANTS: kGrantLimit wait already; INVALID_ARGUMENT: a block outside the volume */
  Result<void> grant(std::vector<Grant> grants);
  /** @error as above */
  Result<void> refuse(std::vector<uint64_t> blocks, int errnoValue);

 private:
  struct Task {
    std::vector<Grant> grants;
    std::vector<uint64_t> refused;
    int errnoValue = 0;
    size_t size() const { return grants.size() + refused.size(); }
  };

  Result<void> push(Task task);
  void run();
  void carryOut(const Task& task);
  int install(const Grant& grant);

  ExtentTable& table_;
  Backing& backing_;
  RangeLock& locks_;
  FaultQueue& faults_;
  const Resume resume_;

  /** Guards what follows. */
  std::mutex mutex_;
  std::condition_variable wanted_;
  std::deque<Task> tasks_;
  size_t waiting_ = 0;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace tidemark

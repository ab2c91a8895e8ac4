// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "../device/backing.h"
#include "../extent/extent_table.h"
#include "../extent/fault_queue.h"
#include "../extent/range_lock.h"
#include "thin_io.h"

namespace tidemark {

/** Answers that wait to be carried out, over all. */
constexpr size_t kGrantLimit = 1 << 20;

/**
 * The answer to a fault. A volume that is not thin also takes it unasked, to be told what is known or may no longer be
 * written.
 */
struct Grant {
  /** No copying; `copyFrom` otherwise is a block of the backing, or -1 for zeros. */
  static constexpr int64_t noCopy = -2;

  uint64_t block = 0;
  uint64_t location = 0;
  bool mapped = false;
  bool writable = false;
  int64_t copyFrom = noCopy;
  /** Thin: keep the place for a write that covers the block. */
  bool reserve = false;
  /** Thin: the layer has the block there already. */
  bool known = false;
};

/**
 * Carries out grants and refusals in the order they were given, on one thread, and runs what they let go.
 *
 * A block is copied and its entry installed while the block's whole range is locked: nobody sees a copy half done, and
 * no write with the old entry is in flight afterwards.
 *
 * A thin volume takes one grant for a fault that was raised. A grant that nobody waits for, or that was made before what
 * it is about changed (FaultQueue::expects()), is void: it might bring old data back, or give a place that was used and
 * freed since. The fault is then raised again, if it still stands. No step is taken twice: a block that is writable
 * already stays as it is.
 *
 * While grants are held (hold() to release()) none is begun: see Volume::freeze().
 */
class GrantWorker {
 public:
  using Resume = std::function<void(ParkedRequest&)>;

  /**
   * @param thin null for a volume that is not thin
   * @param copiedBytes counts bytes copied, or filled with zeros
   */
  GrantWorker(const std::string& name, ExtentTable& table, Backing& backing, RangeLock& locks, FaultQueue& faults,
              ThinLayer* thin, std::atomic<uint64_t>& copiedBytes, Resume resume);
  /** Carries out what was given before, unless held, then ends the thread. */
  ~GrantWorker();
  GrantWorker(const GrantWorker&) = delete;
  GrantWorker& operator=(const GrantWorker&) = delete;

  /** @error TOO_MANY_GRANTS: kGrantLimit wait already; INVALID_ARGUMENT: a block outside the volume */
  Result<void> grant(std::vector<Grant> grants);
  /** As ExtentTable::loadLeaf(), at once; while grants are held nothing of it is writable. @error INVALID_ARGUMENT */
  Result<void> loadLeaf(uint64_t leaf, std::vector<int64_t> entries);
  /** @error as above */
  Result<void> refuse(std::vector<uint64_t> blocks, int errnoValue);

  /** What is given from here on waits. False: it does so already. */
  bool hold();
  /** Held: wait until all that was given before has been carried out. */
  void waitIdle();
  /**
   * Go on. @param discarding the grants that were held are void: their faults are raised again
   * @return the places of those that would have been published
   */
  std::vector<GivenPlace> release(bool discarding);

 private:
  struct Task {
    std::vector<Grant> grants;
    /** To be looked at again. */
    std::vector<uint64_t> changed;
    std::vector<uint64_t> refused;
    int errnoValue = 0;
    size_t size() const { return grants.size() + changed.size() + refused.size(); }
  };

  Result<void> pushLocked(Task task);
  void enqueueLocked(Task task);
  void run();
  void carryOut(const Task& task);
  int install(const Grant& grant);
  int installThin(const Grant& grant);

  ExtentTable& table_;
  Backing& backing_;
  RangeLock& locks_;
  FaultQueue& faults_;
  ThinLayer* const thin_;
  std::atomic<uint64_t>& copiedBytes_;
  const Resume resume_;

  /** Guards what follows. */
  std::mutex mutex_;
  std::condition_variable wanted_;
  std::condition_variable idle_;
  std::deque<Task> tasks_;
  /** What was given while holding_. */
  std::deque<Task> held_;
  size_t waiting_ = 0;
  bool holding_ = false;
  bool busy_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace tidemark

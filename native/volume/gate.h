// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cassert>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace tidemark {

/**
 * Lets requests through, except while somebody changes what they stand on.
 *
 * drain() stops new requests at the gate and returns when those inside have left; reopen() lets go. One drainer at a
 * time (the volume's lifecycle lock sees to that). Passing costs one atomic operation on the way in and one on the way
 * out.
 */
class Gate {
 public:
  void enter() {
    while ((state_.fetch_add(1, std::memory_order_acq_rel) & closedBit) != 0) {
      leave();
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return (state_.load(std::memory_order_acquire) & closedBit) == 0; });
    }
  }

  void leave() {
    uint64_t state = state_.load(std::memory_order_relaxed);
    while ((state & closedBit) == 0) {
      assert(state != 0);
      if (state_.compare_exchange_weak(state, state - 1, std::memory_order_acq_rel)) return;
    }
    // Under the lock, so that who drains goes on, and perhaps destroys the gate, only after this has let go of it.
    const std::lock_guard lock(mutex_);
    const uint64_t before = state_.fetch_sub(1, std::memory_order_acq_rel);
    assert((before & ~closedBit) != 0);
    if ((before & ~closedBit) == 1) changed_.notify_all();
  }

  void drain() {
    std::unique_lock lock(mutex_);
    state_.fetch_or(closedBit, std::memory_order_acq_rel);
    changed_.wait(lock, [this] { return state_.load(std::memory_order_acquire) == closedBit; });
  }

  void reopen() {
    const std::lock_guard lock(mutex_);
    state_.fetch_and(~closedBit, std::memory_order_acq_rel);
    changed_.notify_all();
  }

 private:
  static constexpr uint64_t closedBit = 1ULL << 63;

  alignas(64) std::atomic<uint64_t> state_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

/** Inside the gate for a scope. */
class GatePass {
 public:
  explicit GatePass(Gate& gate) : gate_(gate) { gate_.enter(); }
  ~GatePass() { gate_.leave(); }
  GatePass(const GatePass&) = delete;
  GatePass& operator=(const GatePass&) = delete;

 private:
  Gate& gate_;
};

}  // namespace tidemark

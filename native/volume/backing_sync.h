// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../device/backing.h"

namespace tidemark {

/**
 * Makes the backing durable on a thread of its own, so that no front-end thread waits for the disk.
 *
 * Requests that come while one sync runs share the next. A sync that failed is not tried again: the kernel reports lost
 * pages once, so a second success would mean nothing. From then on every request gets EIO.
 */
class BackingSync {
 public:
  /** 0 or an errno; called once, on the sync thread. */
  using Callback = std::function<void(int errnoValue)>;

  BackingSync(Backing& backing, std::string name);
  /** Answers what was asked before, then ends the thread. */
  ~BackingSync();
  BackingSync(const BackingSync&) = delete;
  BackingSync& operator=(const BackingSync&) = delete;

  /** Everything written to the backing before this call is durable when the callback gets 0. */
  void request(Callback callback);

 private:
  void run();

  Backing& backing_;
  /** Guards what follows. Not held over a sync or a callback. */
  std::mutex mutex_;
  std::condition_variable wanted_;
  std::vector<Callback> waiting_;
  bool stop_ = false;
  /** Touched by the sync thread only. */
  bool failed_ = false;
  std::thread thread_;
};

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#include "backing_sync.h"

#include <pthread.h>

#include <cstdio>

#include "../sys/process_memory.h"
#include "../sys/signals_blocked.h"

namespace tidemark {

BackingSync::BackingSync(Backing& backing, std::string name) : backing_(backing) {
  const SignalsBlocked blocked;
  thread_ = std::thread([this, name = std::move(name)] {
    char title[16];
    std::snprintf(title, sizeof title, "tms %s", name.c_str());
    pthread_setname_np(pthread_self(), title);
    protectThread();
    run();
  });
}

BackingSync::~BackingSync() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wanted_.notify_one();
  thread_.join();
}

void BackingSync::request(Callback callback) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(callback));
  }
  wanted_.notify_one();
}

void BackingSync::run() {
  std::vector<Callback> batch;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      wanted_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      batch.swap(waiting_);
    }
    int result = EIO;
    if (!failed_) {
      result = backing_.sync();
      failed_ = result != 0;
    }
    for (const Callback& callback : batch) callback(result);
    batch.clear();
  }
}

}  // namespace tidemark

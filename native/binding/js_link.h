// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "../sys/result.h"

namespace tidemark {

/**
 * Long calls (attach, detach, sync...) under way at once: a few of each of a thousand streams. Each has a thread of its
 * own, but for the sync of a journal.
 */
constexpr uint32_t kLongCallLimit = 4096;

/**
 * The only way from native threads into JavaScript: one ThreadSafeFunction for the whole addon.
 *
 * It does not keep the process alive, except while hold() says that somebody waits for a promise. Every entry into
 * JavaScript is counted. Held by shared pointer by whoever may post, so that a thread that ends after the environment
 * finds a closed link instead of freed memory.
 *
 * Lock `mutex_` guards `function_`. It is held while a task is queued, which never waits.
 */
class JsLink {
 public:
  using Task = std::function<void(Napi::Env)>;

  static std::shared_ptr<JsLink> create(Napi::Env env);
  static uint64_t javascriptCalls() { return calls_.load(std::memory_order_relaxed); }

  /** From any thread: run on the JavaScript thread, in the order posted. False: the environment is gone. */
  bool post(Task task);

  /** On the JavaScript thread: keep the process alive until the matching release(). */
  void hold(Napi::Env env);
  void release(Napi::Env env);

  /** On the JavaScript thread: whether the next long call would be refused. */
  bool isFull() const { return holds_ >= kLongCallLimit; }

  /** hold(), unless kLongCallLimit are held. */
  bool tryHold(Napi::Env env);

 private:
  JsLink() = default;
  static void dispatch(napi_env env, napi_value, void* context, void* data);
  static void finalized(napi_env env, void* data, void* hint);

  static std::atomic<uint64_t> calls_;

  std::mutex mutex_;
  napi_threadsafe_function function_ = nullptr;
  /** Touched on the JavaScript thread only. */
  uint32_t holds_ = 0;
};

/** An Error with `code`, `errno` and `message`. */
Napi::Error makeError(Napi::Env env, const Error& error);

/** A promise and what settles it: from any thread, once. */
class Settlement {
 public:
  /** Begins as rejected when too many calls are under way: then ok() is false. */
  Settlement(Napi::Env env, std::shared_ptr<JsLink> link);

  bool ok() const { return held_; }
  Napi::Promise promise() const { return deferred_.Promise(); }

  /** Resolve with `convert(env)`, or reject with the error; `then` runs first, on the JavaScript thread. */
  void settle(std::optional<Error> error, std::function<Napi::Value(Napi::Env)> convert,
              std::function<void(Napi::Env)> then = nullptr) const;

 private:
  Napi::Promise::Deferred deferred_;
  std::shared_ptr<JsLink> link_;
  bool held_;
};

/**
 * Run on a thread of its own. Not libuv's pool: a call that waits there would starve the file calls that end the wait.
 */
void startThread(std::function<void()> work);

/**
 * `work` off the JavaScript thread; the promise settles with its result. What `work` holds is let go of before that: a
 * close() that follows finds no user that has ended.
 */
template <typename T>
Napi::Value callLong(Napi::Env env, const std::shared_ptr<JsLink>& link, std::function<Result<T>()> work,
                     std::function<Napi::Value(Napi::Env, T&)> convert,
                     std::function<void(Napi::Env, bool ok)> then = nullptr) {
  const Settlement settlement(env, link);
  if (!settlement.ok()) return settlement.promise();
  startThread([settlement, work = std::move(work), convert = std::move(convert),
               then = std::move(then)]() mutable {
    auto result = std::make_shared<Result<T>>(work());
    work = nullptr;
    const bool ok = result->ok();
    settlement.settle(ok ? std::nullopt : std::optional<Error>(result->error()),
                      [result, convert](Napi::Env inner) { return convert(inner, result->value()); },
                      [then, ok](Napi::Env inner) {
                        if (then) then(inner, ok);
                      });
  });
  return settlement.promise();
}

/** The same without a value. */
Napi::Value callLongVoid(Napi::Env env, const std::shared_ptr<JsLink>& link, std::function<Result<void>()> work,
                         std::function<void(Napi::Env, bool ok)> then = nullptr);

}  // namespace tidemark

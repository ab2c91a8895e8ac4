// SPDX-License-Identifier: Apache-2.0
#include "js_link.h"

#include <pthread.h>

#include <cassert>
#include <thread>

#include "../sys/signals_blocked.h"

namespace tidemark {

std::atomic<uint64_t> JsLink::calls_{0};

std::shared_ptr<JsLink> JsLink::create(Napi::Env env) {
  std::shared_ptr<JsLink> link(new JsLink());
  // The function keeps the link alive until Node has finalized it.
  auto* kept = new std::shared_ptr<JsLink>(link);
  const Napi::String name = Napi::String::New(env, "tidemark");
  const napi_status made = napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, kept, &JsLink::finalized,
                                                           kept, &JsLink::dispatch, &link->function_);
  if (made != napi_ok) {
    delete kept;
    return nullptr;
  }
  napi_unref_threadsafe_function(env, link->function_);
  return link;
}

void JsLink::finalized(napi_env, void* data, void*) {
  const std::unique_ptr<std::shared_ptr<JsLink>> kept(static_cast<std::shared_ptr<JsLink>*>(data));
  const std::lock_guard lock((*kept)->mutex_);
  (*kept)->function_ = nullptr;
}

void JsLink::dispatch(napi_env env, napi_value, void*, void* data) {
  const std::unique_ptr<Task> task(static_cast<Task*>(data));
  if (env == nullptr) return;  // The environment is being torn down.
  calls_.fetch_add(1, std::memory_order_relaxed);
  const Napi::Env wrapped(env);
  const Napi::HandleScope scope(wrapped);
  (*task)(wrapped);
}

bool JsLink::post(Task task) {
  auto kept = std::make_unique<Task>(std::move(task));
  const std::lock_guard lock(mutex_);
  if (function_ == nullptr) return false;
  const napi_status queued = napi_call_threadsafe_function(function_, kept.get(), napi_tsfn_nonblocking);
  if (queued == napi_ok) {
    (void)kept.release();
    return true;
  }
  // Closing: Node counts this as our release of the function, so it must not be touched again.
  function_ = nullptr;
  return false;
}

void JsLink::hold(Napi::Env env) {
  if (holds_++ == 0 && function_ != nullptr) napi_ref_threadsafe_function(env, function_);
}

void JsLink::release(Napi::Env env) {
  assert(holds_ > 0);
  if (--holds_ == 0 && function_ != nullptr) napi_unref_threadsafe_function(env, function_);
}

bool JsLink::tryHold(Napi::Env env) {
  if (isFull()) return false;
  hold(env);
  return true;
}

Napi::Error makeError(Napi::Env env, const Error& error) {
  Napi::Error made = Napi::Error::New(env, error.message);
  made.Set("code", Napi::String::New(env, error.code));
  made.Set("errno", Napi::Number::New(env, error.errnoValue));
  return made;
}

Settlement::Settlement(Napi::Env env, std::shared_ptr<JsLink> link)
    : deferred_(Napi::Promise::Deferred::New(env)), link_(std::move(link)), held_(link_->tryHold(env)) {
  if (held_) return;
  deferred_.Reject(makeError(env, Error{"TOO_MANY_CALLS", EAGAIN, "too many calls are under way"}).Value());
}

void Settlement::settle(std::optional<Error> error, std::function<Napi::Value(Napi::Env)> convert,
                        std::function<void(Napi::Env)> then) const {
  link_->post([deferred = deferred_, link = link_, error = std::move(error), convert = std::move(convert),
               then = std::move(then)](Napi::Env env) {
    link->release(env);
    if (then) then(env);
    if (error) {
      deferred.Reject(makeError(env, *error).Value());
    } else {
      deferred.Resolve(convert(env));
    }
  });
}

void startThread(std::function<void()> work) {
  const SignalsBlocked blocked;
  std::thread([work = std::move(work)] {
    pthread_setname_np(pthread_self(), "tm-call");
    work();
  }).detach();
}

Napi::Value callLongVoid(Napi::Env env, const std::shared_ptr<JsLink>& link, std::function<Result<void>()> work,
                         std::function<void(Napi::Env, bool ok)> then) {
  return callLong<bool>(
      env, link,
      [work = std::move(work)]() -> Result<bool> {
        Result<void> result = work();
        if (!result) return result.error();
        return true;
      },
      [](Napi::Env inner, bool&) -> Napi::Value { return inner.Undefined(); }, std::move(then));
}

}  // namespace tidemark

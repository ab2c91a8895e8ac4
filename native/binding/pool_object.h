// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "../pool/pool.h"
#include "js_link.h"

namespace tidemark {

/** NativePool of src/intercept/addon.ts. Keeps itself alive from opening to the end of close(). */
class PoolObject : public Napi::ObjectWrap<PoolObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit PoolObject(const Napi::CallbackInfo& info);
  ~PoolObject() override;

  /** The pool behind a JavaScript value; null when it is no NativePool, or a closed one. */
  static std::shared_ptr<Pool> poolOf(const Napi::Value& value);

  /** Open and adopt: throws in JavaScript and returns false when it fails. */
  bool open(const Napi::CallbackInfo& info, std::shared_ptr<JsLink> link);

 private:
  Napi::Value take(const Napi::CallbackInfo& info);
  Napi::Value append(const Napi::CallbackInfo& info);
  Napi::Value sync(const Napi::CallbackInfo& info);
  Napi::Value trim(const Napi::CallbackInfo& info);
  Napi::Value head(const Napi::CallbackInfo& info);
  Napi::Value committed(const Napi::CallbackInfo& info);
  Napi::Value discard(const Napi::CallbackInfo& info);
  Napi::Value addDevice(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  bool isOpen(Napi::Env env) const;
  void deliver(const Napi::Env& env, const LogEvent& event);

  /** What native threads are given instead of `this`: null once destroyed. Read and written on the JS thread only. */
  std::shared_ptr<PoolObject*> self_;
  std::shared_ptr<JsLink> link_;
  std::shared_ptr<Pool> pool_;
  Napi::FunctionReference onEvent_;
  /** Memory for take(), used again. */
  std::vector<uint8_t> taken_;
  bool closing_ = false;
};

}  // namespace tidemark

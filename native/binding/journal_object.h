// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <memory>

#include "../journal/journal.h"
#include "js_link.h"

namespace tidemark {

/** NativeJournal of src/intercept/addon.ts. Keeps itself alive from opening to the end of close(). */
class JournalObject : public Napi::ObjectWrap<JournalObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit JournalObject(const Napi::CallbackInfo& info);
  ~JournalObject() override;

  /** Open and adopt: throws in JavaScript and returns false when it fails. */
  bool open(const Napi::CallbackInfo& info, std::shared_ptr<JsLink> link);
  /** Null once closed. */
  std::shared_ptr<Journal> journal() const { return closing_ ? nullptr : journal_; }

 private:
  Napi::Value counters(const Napi::CallbackInfo& info);
  Napi::Value sync(const Napi::CallbackInfo& info);
  Napi::Value trim(const Napi::CallbackInfo& info);
  Napi::Value appendMarker(const Napi::CallbackInfo& info);
  Napi::Value doubt(const Napi::CallbackInfo& info);
  Napi::Value refuse(const Napi::CallbackInfo& info);
  Napi::Value abandon(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  bool isOpen(Napi::Env env) const;
  void deliver(Napi::Env env, const JournalEvent& event);

  /** What native threads are given instead of `this`: null once destroyed. Read and written on the JS thread only. */
  std::shared_ptr<JournalObject*> self_;
  std::shared_ptr<JsLink> link_;
  std::shared_ptr<Journal> journal_;
  Napi::FunctionReference onEvent_;
  bool closing_ = false;
};

}  // namespace tidemark

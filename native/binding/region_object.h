// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <memory>

#include "../journal/region_record.h"
#include "js_link.h"

namespace tidemark {

/** NativeRegions of src/intercept/addon.ts. Keeps itself alive from opening to close(). */
class RegionObject : public Napi::ObjectWrap<RegionObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit RegionObject(const Napi::CallbackInfo& info);
  ~RegionObject() override;

  /** The record behind a JavaScript value; null when it is no NativeRegions, or a closed one. */
  static std::shared_ptr<RegionRecord> recordOf(const Napi::Value& value);

  /** Open and adopt: throws in JavaScript and returns false when it fails. */
  bool open(const Napi::CallbackInfo& info, std::shared_ptr<JsLink> link);

 private:
  Napi::Value rotate(const Napi::CallbackInfo& info);
  Napi::Value drop(const Napi::CallbackInfo& info);
  Napi::Value giveUp(const Napi::CallbackInfo& info);
  Napi::Value active(const Napi::CallbackInfo& info);
  Napi::Value counters(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  bool isOpen(Napi::Env env) const;
  void deliver(const Napi::Env& env, const RegionEvent& event);

  /** What native threads are given instead of `this`: null once destroyed. Read and written on the JS thread only. */
  std::shared_ptr<RegionObject*> self_;
  std::shared_ptr<JsLink> link_;
  /** A volume that still has it keeps it open after close(). */
  std::shared_ptr<RegionRecord> record_;
  Napi::FunctionReference onEvent_;
};

}  // namespace tidemark

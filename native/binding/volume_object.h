// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <memory>

#include "../volume/volume.h"
#include "js_link.h"

namespace tidemark {

/** NativeVolume of src/intercept/addon.ts. Keeps itself alive from opening to the end of close(). */
class VolumeObject : public Napi::ObjectWrap<VolumeObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit VolumeObject(const Napi::CallbackInfo& info);
  ~VolumeObject() override;

  /** Open and adopt: throws in JavaScript and returns false when it fails. */
  bool open(const Napi::CallbackInfo& info, std::shared_ptr<JsLink> link, const Napi::Function& journalClass);

 private:
  Napi::Value sizeBytes(const Napi::CallbackInfo& info);
  Napi::Value logicalBlockBytes(const Napi::CallbackInfo& info);
  Napi::Value isBlockDevice(const Napi::CallbackInfo& info);
  Napi::Value attach(const Napi::CallbackInfo& info);
  Napi::Value serve(const Napi::CallbackInfo& info);
  Napi::Value unserve(const Napi::CallbackInfo& info);
  Napi::Value detach(const Napi::CallbackInfo& info);
  Napi::Value setJournal(const Napi::CallbackInfo& info);
  Napi::Value syncBacking(const Napi::CallbackInfo& info);
  Napi::Value grant(const Napi::CallbackInfo& info);
  Napi::Value loadLeaf(const Napi::CallbackInfo& info);
  Napi::Value freeze(const Napi::CallbackInfo& info);
  Napi::Value resize(const Napi::CallbackInfo& info);
  Napi::Value refuse(const Napi::CallbackInfo& info);
  Napi::Value setHoles(const Napi::CallbackInfo& info);
  Napi::Value counters(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  bool isOpen(Napi::Env env) const;
  void deliverFaults(Napi::Env env);

  /** What native threads are given instead of `this`: null once destroyed. Read and written on the JS thread only. */
  std::shared_ptr<VolumeObject*> self_;
  std::shared_ptr<JsLink> link_;
  std::shared_ptr<Volume> volume_;
  Napi::FunctionReference onFaults_;
  Napi::FunctionReference onLost_;
  Napi::FunctionReference journalClass_;
};

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#include "region_object.h"

#include <cstring>

#include "js_options.h"

namespace tidemark {
namespace {

/** Tells a NativeRegions from other objects: an unwrap of anything else would read what is not there. */
constexpr napi_type_tag regionTag = {0x7469646d61726b02, 0x726567696f6e7331};
constexpr int64_t regionLimitBytes = int64_t{1} << 30;

Napi::Value number(Napi::Env env, uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

}  // namespace

Napi::Function RegionObject::define(Napi::Env env) {
  return DefineClass(
      env, "NativeRegions",
      {InstanceMethod<&RegionObject::rotate>("rotate"), InstanceMethod<&RegionObject::drop>("drop"),
       InstanceMethod<&RegionObject::giveUp>("giveUp"), InstanceMethod<&RegionObject::active>("active"),
       InstanceMethod<&RegionObject::counters>("counters"), InstanceMethod<&RegionObject::close>("close")});
}

RegionObject::RegionObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<RegionObject>(info) {
  self_ = std::make_shared<RegionObject*>(this);
  info.This().As<Napi::Object>().TypeTag(&regionTag);
}

RegionObject::~RegionObject() { *self_ = nullptr; }

std::shared_ptr<RegionRecord> RegionObject::recordOf(const Napi::Value& value) {
  if (value.IsEmpty() || !value.IsObject()) return nullptr;
  const auto object = value.As<Napi::Object>();
  if (!object.CheckTypeTag(&regionTag)) return nullptr;
  return RegionObject::Unwrap(object)->record_;
}

bool RegionObject::open(const Napi::CallbackInfo& info, std::shared_ptr<JsLink> link) {
  const Napi::Env env = info.Env();
  JsOptions given(info[0]);
  RegionRecordOptions options;
  options.path = given.text("path");
  options.regionBytes = static_cast<uint64_t>(given.number("regionBytes", 4096, regionLimitBytes));
  options.limitRegions = static_cast<uint64_t>(given.number("limitRegions", 0, kSafeInteger));
  const Napi::Function onEvent = given.function("onEvent", true);
  const Napi::Value id = given.field("recordId");
  if (!id.IsEmpty() && id.IsBuffer() && id.As<Napi::Buffer<uint8_t>>().Length() == options.recordId.size()) {
    std::memcpy(options.recordId.data(), id.As<Napi::Buffer<uint8_t>>().Data(), options.recordId.size());
  } else {
    given.reject("recordId", "a Buffer of 16 bytes");
  }
  const Napi::Value sizes = given.field("volumeBytes");
  if (!sizes.IsEmpty() && sizes.IsArray()) {
    const auto array = sizes.As<Napi::Array>();
    for (uint32_t index = 0; index < array.Length(); index++) {
      const Napi::Value size = array.Get(index);
      const double bytes = size.IsNumber() ? size.As<Napi::Number>().DoubleValue() : 0;
      if (!(bytes > 0 && bytes <= static_cast<double>(kSafeInteger))) given.reject("volumeBytes", "sizes in bytes");
      options.volumeBytes.push_back(static_cast<uint64_t>(bytes));
    }
  } else {
    given.reject("volumeBytes", "an array");
  }
  if (given.error()) {
    throwError(env, *given.error());
    return false;
  }
  link_ = std::move(link);
  onEvent_ = Napi::Persistent(onEvent);
  options.onEvent = [link = link_, self = self_](const RegionEvent& event) {
    link->post([self, event](Napi::Env inner) {
      if (*self != nullptr) (*self)->deliver(inner, event);
    });
  };
  auto record = RegionRecord::open(std::move(options));
  if (!record) {
    throwError(env, record.error());
    return false;
  }
  record_ = record.take();
  Ref();
  return true;
}

void RegionObject::deliver(const Napi::Env& env, const RegionEvent& event) {
  if (onEvent_.IsEmpty()) return;
  Napi::Object object = Napi::Object::New(env);
  object.Set("kind", event.kind == RegionEvent::Kind::kLimit ? "limit" : "failed");
  object.Set("message", event.error.message);
  onEvent_.Call({object});
}

bool RegionObject::isOpen(Napi::Env env) const {
  if (record_ != nullptr) return true;
  throwError(env, Error{"REGIONS_CLOSED", 0, "the region record is closed"});
  return false;
}

Napi::Value RegionObject::rotate(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  const bool carry = info[0].ToBoolean().Value();
  return callLongVoid(env, link_, [record = record_, carry] { return record->rotate(carry); });
}

Napi::Value RegionObject::drop(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  return callLongVoid(env, link_, [record = record_] { return record->drop(); });
}

Napi::Value RegionObject::giveUp(const Napi::CallbackInfo& info) {
  if (isOpen(info.Env())) record_->giveUp();
  return info.Env().Undefined();
}

Napi::Value RegionObject::active(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  const std::vector<uint64_t> words = record_->active();
  return Napi::Buffer<uint8_t>::Copy(env, reinterpret_cast<const uint8_t*>(words.data()), words.size() * sizeof words[0]);
}

Napi::Value RegionObject::counters(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  const RegionCounters counters = record_->counters();
  Napi::Object object = Napi::Object::New(env);
  object.Set("current", number(env, counters.current));
  object.Set("previous", number(env, counters.previous));
  object.Set("active", number(env, counters.active));
  object.Set("syncs", number(env, counters.syncs));
  return object;
}

Napi::Value RegionObject::close(const Napi::CallbackInfo& info) {
  if (record_ != nullptr) {
    record_.reset();
    onEvent_.Reset();
    Unref();
  }
  return info.Env().Undefined();
}

}  // namespace tidemark

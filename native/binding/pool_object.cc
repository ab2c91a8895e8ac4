// SPDX-License-Identifier: Apache-2.0
#include "pool_object.h"

#include <cstring>

#include "js_options.h"

namespace tidemark {
namespace {

/** Tells a NativePool from other objects: an unwrap of anything else would read what is not there. */
constexpr napi_type_tag poolTag = {0x7469646d61726b01, 0x706f6f6c6f626a65};
/** Memory kept for the next take(). */
constexpr size_t keptBytes = 1 << 20;
constexpr uint32_t discardRangeLimit = 1 << 20;

Napi::Value bigInt(Napi::Env env, uint64_t value) { return Napi::BigInt::New(env, value); }

PoolDeviceOptions deviceOf(const Napi::Value& value, std::optional<Error>& error) {
  JsOptions given(value);
  PoolDeviceOptions device;
  device.path = given.text("path");
  device.sizeBytes = static_cast<uint64_t>(given.number("sizeBytes", 0, kSafeInteger));
  if (given.error() && !error) error = *given.error();
  return device;
}

const char* nameOf(LogEvent::Kind kind) {
  switch (kind) {
    case LogEvent::Kind::kAppended:
      return "appended";
    case LogEvent::Kind::kFilling:
      return "log-filling";
    case LogEvent::Kind::kFull:
      return "log-full";
    case LogEvent::Kind::kFailed:
      break;
  }
  return "failed";
}

}  // namespace

Napi::Function PoolObject::define(Napi::Env env) {
  return DefineClass(
      env, "NativePool",
      {InstanceMethod<&PoolObject::take>("take"), InstanceMethod<&PoolObject::append>("append"),
       InstanceMethod<&PoolObject::sync>("sync"), InstanceMethod<&PoolObject::trim>("trim"),
       InstanceMethod<&PoolObject::head>("head"), InstanceMethod<&PoolObject::committed>("committed"),
       InstanceMethod<&PoolObject::discard>("discard"), InstanceMethod<&PoolObject::addDevice>("addDevice"),
       InstanceMethod<&PoolObject::close>("close")});
}

PoolObject::PoolObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PoolObject>(info) {
  self_ = std::make_shared<PoolObject*>(this);
  info.This().As<Napi::Object>().TypeTag(&poolTag);
}

PoolObject::~PoolObject() {
  *self_ = nullptr;
  // Only an environment that ends with the pool open comes here: volumes may still run on it, and the process is about
  // to exit. What was published is in the page cache.
  if (pool_ != nullptr) new std::shared_ptr<Pool>(std::move(pool_));
}

std::shared_ptr<Pool> PoolObject::poolOf(const Napi::Value& value) {
  if (value.IsEmpty() || !value.IsObject()) return nullptr;
  const auto object = value.As<Napi::Object>();
  if (!object.CheckTypeTag(&poolTag)) return nullptr;
  const PoolObject* const wrapped = PoolObject::Unwrap(object);
  return wrapped->closing_ ? nullptr : wrapped->pool_;
}

bool PoolObject::open(const Napi::CallbackInfo& info, std::shared_ptr<JsLink> link) {
  const Napi::Env env = info.Env();
  JsOptions given(info[0]);
  PoolOptions options;
  options.name = given.text("name");
  options.blockBytes = static_cast<uint32_t>(given.number("blockBytes", 4 << 10, 1 << 20));
  options.direct = given.flag("direct");
  const Napi::Function onEvent = given.function("onEvent", true);
  JsOptions log(given.field("log"));
  options.log.offset = static_cast<uint64_t>(log.number("offset", 0, kSafeInteger));
  options.log.capacityRecords = static_cast<uint64_t>(log.number("capacityRecords", 0, kSafeInteger));
  options.log.seed = static_cast<uint32_t>(log.number("seed", 0, 0xffffffff));
  options.log.head = log.lsn("head");
  options.log.tail = log.lsn("tail");
  std::optional<Error> error = given.error() ? given.error() : log.error();
  const Napi::Value devices = given.field("devices");
  if (!error && (devices.IsEmpty() || !devices.IsArray())) {
    error = Error{"INVALID_ARGUMENT", EINVAL, "devices must be an array"};
  }
  if (!error) {
    const auto array = devices.As<Napi::Array>();
    for (uint32_t index = 0; index < array.Length() && !error; index++) {
      options.devices.push_back(deviceOf(array.Get(index), error));
    }
  }
  if (error) {
    throwError(env, *error);
    return false;
  }
  link_ = std::move(link);
  onEvent_ = Napi::Persistent(onEvent);
  // The pool may outlive this object, when the environment ends with it open.
  options.onEvent = [link = link_, self = self_](const LogEvent& event) {
    link->post([self, event](Napi::Env inner) {
      if (*self != nullptr) (*self)->deliver(inner, event);
    });
  };
  auto pool = Pool::open(std::move(options));
  if (!pool) {
    throwError(env, pool.error());
    return false;
  }
  pool_ = pool.take();
  Ref();
  return true;
}

void PoolObject::deliver(const Napi::Env& env, const LogEvent& event) {
  if (onEvent_.IsEmpty()) return;
  Napi::Object object = Napi::Object::New(env);
  object.Set("kind", nameOf(event.kind));
  if (event.kind == LogEvent::Kind::kFailed) object.Set("message", event.message);
  onEvent_.Call({object});
}

bool PoolObject::isOpen(Napi::Env env) const {
  if (pool_ != nullptr && !closing_) return true;
  throwError(env, Error{"POOL_CLOSED", 0, "the pool is closed"});
  return false;
}

Napi::Value PoolObject::take(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  pool_->log().take(taken_);
  const auto copy = Napi::Buffer<uint8_t>::Copy(env, taken_.data(), taken_.size());
  if (taken_.capacity() > keptBytes) taken_ = {};
  return copy;
}

Napi::Value PoolObject::append(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  if (!info[0].IsBuffer()) return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "append() needs a Buffer"});
  const auto records = info[0].As<Napi::Buffer<uint8_t>>();
  const Result<uint64_t> first = pool_->append({records.Data(), records.Length()});
  return first ? bigInt(env, first.value()) : throwError(env, first.error());
}

Napi::Value PoolObject::sync(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  return callLong<uint64_t>(
      env, link_, [pool = pool_] { return pool->syncCovered(); },
      [](Napi::Env inner, uint64_t& covered) { return bigInt(inner, covered); });
}

Napi::Value PoolObject::trim(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  const std::optional<uint64_t> tail = lsnOf(info[0]);
  if (!tail) return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "trim() needs a sequence number"});
  const Result<void> trimmed = pool_->log().trim(*tail);
  return trimmed ? env.Undefined() : throwError(env, trimmed.error());
}

Napi::Value PoolObject::head(const Napi::CallbackInfo& info) {
  return isOpen(info.Env()) ? bigInt(info.Env(), pool_->log().head()) : info.Env().Undefined();
}

Napi::Value PoolObject::committed(const Napi::CallbackInfo& info) {
  return isOpen(info.Env()) ? bigInt(info.Env(), pool_->log().committed()) : info.Env().Undefined();
}

Napi::Value PoolObject::discard(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  if (!info[0].IsArray() || info[0].As<Napi::Array>().Length() > discardRangeLimit) {
    return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "discard() needs an array of 2^20 ranges at the most"});
  }
  const auto array = info[0].As<Napi::Array>();
  auto ranges = std::make_shared<std::vector<BlockRange>>(array.Length());
  for (uint32_t index = 0; index < ranges->size(); index++) {
    JsOptions given(array.Get(index));
    (*ranges)[index].location = static_cast<uint64_t>(given.number("location", 0, kLocationLimit - 1));
    (*ranges)[index].count = static_cast<uint64_t>(given.number("count", 1, int64_t{1} << kDeviceShift));
    if (given.error()) return throwError(env, *given.error());
  }
  return callLong<bool>(
      env, link_, [pool = pool_, ranges] { return pool->discard(*ranges); },
      [](Napi::Env inner, bool& zeros) -> Napi::Value { return Napi::Boolean::New(inner, zeros); });
}

Napi::Value PoolObject::addDevice(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  std::optional<Error> error;
  const PoolDeviceOptions device = deviceOf(info[0], error);
  if (error) return throwError(env, *error);
  const Result<void> added = pool_->addDevice(device);
  return added ? env.Undefined() : throwError(env, added.error());
}

Napi::Value PoolObject::close(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  // Volumes and calls under way hold it too.
  if (pool_.use_count() > 1) {
    const Settlement refused(env, link_);
    if (refused.ok()) refused.settle(Error{"POOL_IN_USE", EBUSY, "a volume or a call still uses the pool"}, nullptr);
    return refused.promise();
  }
  // A close that is refused for too many calls has not begun: it can be asked for again.
  closing_ = !link_->isFull();
  // On a thread: the last descriptor of a block device waits for what the page cache holds of it.
  return callLongVoid(
      env, link_,
      [pool = pool_]() -> Result<void> {
        pool->close();
        return {};
      },
      [self = self_](Napi::Env, bool) {
        if (*self == nullptr) return;
        (*self)->pool_.reset();
        (*self)->onEvent_.Reset();
        (*self)->Unref();
      });
}

}  // namespace tidemark

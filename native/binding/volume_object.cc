// SPDX-License-Identifier: Apache-2.0
#include "volume_object.h"

#include "journal_object.h"
#include "js_options.h"
#include "pool_object.h"
#include "region_object.h"

namespace tidemark {
namespace {

Napi::Value number(Napi::Env env, uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

constexpr int64_t blockLimit = int64_t{1} << 48;
constexpr int64_t locationLimit = static_cast<int64_t>(kExtentLocationLimit);

/** A boolean that may be absent. */
bool optionalFlag(JsOptions& given, const char* name) {
  const Napi::Value value = given.field(name);
  return !value.IsEmpty() && !value.IsUndefined() && given.flag(name);
}

/** One object for each place. */
Napi::Array placesOf(Napi::Env env, const std::vector<GivenPlace>& places) {
  Napi::Array array = Napi::Array::New(env, places.size());
  for (uint32_t index = 0; index < places.size(); index++) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("block", number(env, places[index].block));
    object.Set("location", number(env, places[index].location));
    array.Set(index, object);
  }
  return array;
}

}  // namespace

Napi::Function VolumeObject::define(Napi::Env env) {
  return DefineClass(env, "NativeVolume",
                     {InstanceAccessor<&VolumeObject::sizeBytes>("sizeBytes"),
                      InstanceAccessor<&VolumeObject::logicalBlockBytes>("logicalBlockBytes"),
                      InstanceAccessor<&VolumeObject::isBlockDevice>("isBlockDevice"),
                      InstanceMethod<&VolumeObject::attach>("attach"), InstanceMethod<&VolumeObject::detach>("detach"),
                      InstanceMethod<&VolumeObject::serve>("serve"), InstanceMethod<&VolumeObject::unserve>("unserve"),
                      InstanceMethod<&VolumeObject::setJournal>("setJournal"),
                      InstanceMethod<&VolumeObject::syncBacking>("syncBacking"),
                      InstanceMethod<&VolumeObject::grant>("grant"), InstanceMethod<&VolumeObject::refuse>("refuse"),
                      InstanceMethod<&VolumeObject::setHoles>("setHoles"),
                      InstanceMethod<&VolumeObject::loadLeaf>("loadLeaf"),
                      InstanceMethod<&VolumeObject::freeze>("freeze"), InstanceMethod<&VolumeObject::resize>("resize"),
                      InstanceMethod<&VolumeObject::counters>("counters"),
                      InstanceMethod<&VolumeObject::close>("close")});
}

VolumeObject::VolumeObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<VolumeObject>(info) {
  self_ = std::make_shared<VolumeObject*>(this);
}

VolumeObject::~VolumeObject() {
  *self_ = nullptr;
  // Only an environment that ends with the volume open comes here: the process is about to exit and the kernel ends
  // the connection with it. Joining threads that may be held up would keep it from doing so.
  if (volume_ != nullptr) new std::shared_ptr<Volume>(std::move(volume_));
}

bool VolumeObject::open(const Napi::CallbackInfo& info, std::shared_ptr<JsLink> link,
                        const Napi::Function& journalClass) {
  const Napi::Env env = info.Env();
  JsOptions given(info[0]);
  VolumeOptions options;
  options.name = given.text("name");
  options.path = given.text("path");
  options.sizeBytes = static_cast<uint64_t>(given.number("sizeBytes", 0, kSafeInteger));
  options.direct = given.flag("direct");
  options.readOnly = given.flag("readOnly");
  options.syncBacking = given.flag("syncBacking");
  options.threads = static_cast<uint32_t>(given.number("threads", 1, 16));
  const Napi::Function onFaults = given.function("onFaults", false);
  const Napi::Function onLost = given.function("onLost", false);
  const Napi::Value table = given.field("table");
  if (!table.IsEmpty() && !table.IsUndefined()) {
    JsOptions tableOptions(table);
    options.tableBlockBytes = static_cast<uint32_t>(tableOptions.number("blockBytes", 512, 64 << 20));
    if (tableOptions.error()) given.reject("table", "{ blockBytes }");
    if (onFaults.IsEmpty()) given.reject("onFaults", "given when there is a table");
  }
  const Napi::Value pool = given.field("pool");
  if (!pool.IsEmpty() && !pool.IsUndefined()) {
    JsOptions poolOptions(pool);
    options.layer = static_cast<uint32_t>(poolOptions.number("layer", 0, UINT32_MAX));
    options.pool = PoolObject::poolOf(poolOptions.field("pool"));
    if (poolOptions.error() || options.pool == nullptr) given.reject("pool", "{ pool: an open pool, layer }");
  }
  if (given.error()) {
    throwError(env, *given.error());
    return false;
  }
  link_ = std::move(link);
  if (!onFaults.IsEmpty()) onFaults_ = Napi::Persistent(onFaults);
  if (!onLost.IsEmpty()) onLost_ = Napi::Persistent(onLost);
  journalClass_ = Napi::Persistent(journalClass);
  // The volume may outlive this object, when the environment ends with it open.
  options.onFaults = [link = link_, self = self_] {
    link->post([self](Napi::Env inner) {
      if (*self != nullptr) (*self)->deliverFaults(inner);
    });
  };
  options.onLost = [link = link_, self = self_](const std::string& message) {
    link->post([self, message](Napi::Env inner) {
      if (*self != nullptr && !(*self)->onLost_.IsEmpty()) (*self)->onLost_.Call({Napi::String::New(inner, message)});
    });
  };
  auto volume = Volume::open(std::move(options));
  if (!volume) {
    throwError(env, volume.error());
    return false;
  }
  volume_ = volume.take();
  Ref();
  return true;
}

bool VolumeObject::isOpen(Napi::Env env) const {
  if (volume_ != nullptr) return true;
  throwError(env, Error{"VOLUME_CLOSED", 0, "the volume is closed"});
  return false;
}

void VolumeObject::deliverFaults(Napi::Env env) {
  if (volume_ == nullptr || onFaults_.IsEmpty()) return;
  std::vector<Fault> faults;
  if (volume_->takeFaults(faults)) {
    // More wait: the next batch comes in a task of its own, so that JavaScript breathes in between.
    link_->post([self = self_](Napi::Env inner) {
      if (*self != nullptr) (*self)->deliverFaults(inner);
    });
  }
  if (faults.empty()) return;
  Napi::Array array = Napi::Array::New(env, faults.size());
  for (uint32_t index = 0; index < faults.size(); index++) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("block", number(env, faults[index].block));
    object.Set("kind", faults[index].kind == FaultKind::kWrite ? "write" : "read-unknown");
    object.Set("wholeBlock", Napi::Boolean::New(env, faults[index].wholeBlock));
    array.Set(index, object);
  }
  onFaults_.Call({array});
  if (!env.IsExceptionPending()) return;
  // Nobody answers these faults now. Swallowed, hosts would wait for ever and nobody know why.
  const Napi::Error thrown = env.GetAndClearPendingException();
  napi_fatal_exception(env, thrown.Value());
}

Napi::Value VolumeObject::sizeBytes(const Napi::CallbackInfo& info) {
  return isOpen(info.Env()) ? number(info.Env(), volume_->sizeBytes()) : info.Env().Undefined();
}

Napi::Value VolumeObject::logicalBlockBytes(const Napi::CallbackInfo& info) {
  return isOpen(info.Env()) ? number(info.Env(), volume_->logicalBlockBytes()) : info.Env().Undefined();
}

Napi::Value VolumeObject::isBlockDevice(const Napi::CallbackInfo& info) {
  return isOpen(info.Env()) ? Napi::Boolean::New(info.Env(), volume_->isBlockDevice()) : info.Env().Undefined();
}

Napi::Value VolumeObject::attach(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  if (!info[0].IsString()) return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "attach() needs a mount point"});
  const std::string mountPoint = info[0].As<Napi::String>().Utf8Value();
  bool readOnly = false;
  if (!info[1].IsUndefined()) {
    JsOptions given(info[1]);
    readOnly = optionalFlag(given, "readOnly");
    if (given.error()) return throwError(env, *given.error());
  }
  return callLong<Attachment>(
      env, link_, [volume = volume_, mountPoint, readOnly] { return volume->attach(mountPoint, readOnly); },
      [](Napi::Env inner, Attachment& attached) -> Napi::Value {
        Napi::Object object = Napi::Object::New(inner);
        object.Set("device", attached.device);
        object.Set("takenOver", Napi::Boolean::New(inner, attached.takenOver));
        object.Set("kept", Napi::Boolean::New(inner, attached.kept));
        return object;
      });
}

Napi::Value VolumeObject::detach(const Napi::CallbackInfo& info) {
  if (!isOpen(info.Env())) return info.Env().Undefined();
  return callLongVoid(info.Env(), link_, [volume = volume_] { return volume->detach(); });
}

Napi::Value VolumeObject::serve(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  if (!info[0].IsString()) return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "serve() needs a mount point"});
  const std::string mountPoint = info[0].As<Napi::String>().Utf8Value();
  return callLongVoid(env, link_, [volume = volume_, mountPoint] { return volume->serve(mountPoint); });
}

Napi::Value VolumeObject::unserve(const Napi::CallbackInfo& info) {
  if (!isOpen(info.Env())) return info.Env().Undefined();
  return callLongVoid(info.Env(), link_, [volume = volume_] { return volume->unserve(); });
}

Napi::Value VolumeObject::setJournal(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  std::shared_ptr<Journal> journal;
  if (!info[0].IsNull()) {
    if (!info[0].IsObject() || !info[0].As<Napi::Object>().InstanceOf(journalClass_.Value())) {
      return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "setJournal() needs a journal or null"});
    }
    journal = JournalObject::Unwrap(info[0].As<Napi::Object>())->journal();
    if (journal == nullptr) return throwError(env, Error{"JOURNAL_CLOSED", 0, "the journal is closed"});
  }
  const double index = info[1].IsNumber() ? info[1].As<Napi::Number>().DoubleValue() : 0;
  if (!(index >= 0 && index < kNoVolume)) {
    return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "a volume index is 0 to 65534"});
  }
  std::shared_ptr<RegionRecord> regions;
  if (!info[2].IsUndefined() && !info[2].IsNull()) {
    regions = RegionObject::recordOf(info[2]);
    if (regions == nullptr) return throwError(env, Error{"REGIONS_CLOSED", 0, "the region record is closed"});
  }
  // Moved along, so that the journal counts no user more than the volume once this has ended.
  auto moved = std::make_shared<std::shared_ptr<Journal>>(std::move(journal));
  return callLongVoid(env, link_, [volume = volume_, moved, regions, index] {
    return volume->setJournal(std::move(*moved), static_cast<uint16_t>(index), regions);
  });
}

Napi::Value VolumeObject::syncBacking(const Napi::CallbackInfo& info) {
  if (!isOpen(info.Env())) return info.Env().Undefined();
  return callLongVoid(info.Env(), link_, [volume = volume_] { return volume->syncBacking(); });
}

Napi::Value VolumeObject::grant(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  if (!info[0].IsArray()) return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "grant() needs an array"});
  const auto array = info[0].As<Napi::Array>();
  std::vector<Grant> grants(array.Length());
  for (uint32_t index = 0; index < grants.size(); index++) {
    JsOptions given(array.Get(index));
    Grant& grant = grants[index];
    grant.block = static_cast<uint64_t>(given.number("block", 0, blockLimit));
    grant.mapped = given.flag("mapped");
    grant.writable = given.flag("writable");
    if (grant.mapped) {
      grant.location = static_cast<uint64_t>(given.number("location", 0, locationLimit - 1));
      grant.copyFrom = given.optionalNumber("copyFrom", -1, locationLimit - 1).value_or(Grant::noCopy);
    }
    grant.reserve = optionalFlag(given, "reserve");
    grant.known = optionalFlag(given, "known");
    if (given.error()) return throwError(env, *given.error());
  }
  Result<void> granted = volume_->grant(std::move(grants));
  return granted ? env.Undefined() : throwError(env, granted.error());
}

Napi::Value VolumeObject::loadLeaf(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  const double leaf = info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : -1;
  const bool isArray = info[1].IsTypedArray() && info[1].As<Napi::TypedArray>().TypedArrayType() == napi_float64_array;
  if (!(leaf >= 0 && leaf < static_cast<double>(blockLimit)) || !(isArray || info[1].IsNull())) {
    return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "loadLeaf() needs a leaf and a Float64Array or null"});
  }
  std::vector<int64_t> entries;
  if (isArray) {
    const auto array = info[1].As<Napi::Float64Array>();
    const double* values = array.Data();
    entries.resize(array.ElementLength());
    for (size_t index = 0; index < entries.size(); index++) {
      // A value that is no entry becomes one that is refused.
      const bool isEntry = values[index] >= -1 && values[index] < 2.0 * static_cast<double>(kExtentLocationLimit);
      entries[index] = isEntry ? static_cast<int64_t>(values[index]) : -2;
    }
    if (entries.empty()) entries.push_back(-2);
  }
  Result<void> loaded = volume_->loadLeaf(static_cast<uint64_t>(leaf), std::move(entries));
  return loaded ? env.Undefined() : throwError(env, loaded.error());
}

Napi::Value VolumeObject::freeze(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  const double layer = info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : -1;
  if (!(layer >= 0 && layer <= UINT32_MAX) || !info[1].IsBuffer()) {
    return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "freeze() needs a layer and a Buffer of records"});
  }
  const auto buffer = info[1].As<Napi::Buffer<uint8_t>>();
  std::vector<uint8_t> operation(buffer.Data(), buffer.Data() + buffer.Length());
  // Grants are given here, so this is where they begin and cease to be held.
  if (link_->isFull()) return throwError(env, Error{"TOO_MANY_CALLS", EAGAIN, "too many calls are under way"});
  if (!volume_->holdGrants()) return throwError(env, Error{"FREEZE_RUNS", EBUSY, "another freeze() is under way"});
  const auto held = std::make_shared<std::vector<GivenPlace>>();
  return callLong<std::vector<GivenPlace>>(
      env, link_,
      [volume = volume_, layer, operation = std::move(operation)] {
        return volume->freeze(static_cast<uint32_t>(layer), operation);
      },
      [held](Napi::Env inner, std::vector<GivenPlace>& places) -> Napi::Value {
        places.insert(places.end(), held->begin(), held->end());
        Napi::Object object = Napi::Object::New(inner);
        object.Set("dropped", placesOf(inner, places));
        return object;
      },
      [volume = volume_, held](Napi::Env, bool frozen) { *held = volume->releaseGrants(frozen); });
}

Napi::Value VolumeObject::resize(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  const double size = info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : -1;
  if (!(size > 0 && size <= static_cast<double>(kSafeInteger))) {
    return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "resize() needs a size in bytes"});
  }
  return callLongVoid(env, link_, [volume = volume_, size] { return volume->resize(static_cast<uint64_t>(size)); });
}

Napi::Value VolumeObject::refuse(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  if (!info[0].IsArray() || !info[1].IsNumber()) {
    return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "refuse() needs an array and an errno"});
  }
  const auto array = info[0].As<Napi::Array>();
  std::vector<uint64_t> blocks(array.Length());
  for (uint32_t index = 0; index < blocks.size(); index++) {
    const Napi::Value block = array.Get(index);
    if (!block.IsNumber()) return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "a block is a number"});
    blocks[index] = static_cast<uint64_t>(block.As<Napi::Number>().Int64Value());
  }
  Result<void> refused = volume_->refuse(std::move(blocks), info[1].As<Napi::Number>().Int32Value());
  return refused ? env.Undefined() : throwError(env, refused.error());
}

Napi::Value VolumeObject::setHoles(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  if (!info[0].IsBoolean()) return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "setHoles() needs true or false"});
  volume_->setHoles(info[0].As<Napi::Boolean>());
  return env.Undefined();
}

Napi::Value VolumeObject::counters(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  const VolumeCounters counters = volume_->counters();
  Napi::Object object = Napi::Object::New(env);
  object.Set("reads", number(env, counters.reads));
  object.Set("writes", number(env, counters.writes));
  object.Set("flushes", number(env, counters.flushes));
  object.Set("trims", number(env, counters.trims));
  object.Set("readBytes", number(env, counters.readBytes));
  object.Set("writtenBytes", number(env, counters.writtenBytes));
  object.Set("faults", number(env, counters.faults));
  object.Set("inFlight", number(env, counters.inFlight));
  object.Set("errors", number(env, counters.errors));
  object.Set("copiedBytes", number(env, counters.copiedBytes));
  return object;
}

Napi::Value VolumeObject::close(const Napi::CallbackInfo& info) {
  if (!isOpen(info.Env())) return info.Env().Undefined();
  return callLongVoid(
      info.Env(), link_, [volume = volume_] { return volume->close(); },
      [self = self_](Napi::Env, bool ok) {
        VolumeObject* const object = *self;
        if (!ok || object == nullptr || object->volume_ == nullptr) return;
        object->volume_.reset();
        object->onFaults_.Reset();
        object->onLost_.Reset();
        object->journalClass_.Reset();
        object->Unref();
      });
}

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#include <napi.h>
#include <unistd.h>

#include "../sys/keeper.h"
#include "../sys/mount_point.h"
#include "../sys/process_memory.h"
#include "journal_object.h"
#include "js_link.h"
#include "js_options.h"
#include "pool_object.h"
#include "region_object.h"
#include "volume_object.h"

/**
 * The surface src/intercept/addon.ts describes, and nothing else. No exception leaves native code; errors cross as
 * { code, errno, message }.
 */
namespace tidemark {

class Addon : public Napi::Addon<Addon> {
 public:
  Addon(Napi::Env env, Napi::Object exports) {
    if (getpid() != gettid()) {
      throwError(env, Error{"WRONG_THREAD", 0, "the addon can be loaded in the main thread only"});
      return;
    }
    link_ = JsLink::create(env);
    journalClass_ = Napi::Persistent(JournalObject::define(env));
    poolClass_ = Napi::Persistent(PoolObject::define(env));
    regionClass_ = Napi::Persistent(RegionObject::define(env));
    volumeClass_ = Napi::Persistent(VolumeObject::define(env));
    DefineAddon(exports, {InstanceMethod("openJournal", &Addon::openJournal),
                          InstanceMethod("openVolume", &Addon::openVolume),
                          InstanceMethod("openPool", &Addon::openPool),
                          InstanceMethod("openKeeper", &Addon::openKeeper),
                          InstanceMethod("openRegions", &Addon::openRegions),
                          InstanceMethod("javascriptCalls", &Addon::javascriptCalls),
                          InstanceMethod("giveUpKept", &Addon::giveUpKept),
                          InstanceMethod("protectProcess", &Addon::protectThisProcess),
                          InstanceMethod("releaseStale", &Addon::releaseStale)});
  }
  ~Addon() {
    if (self_) *self_ = nullptr;
  }

 private:
  Napi::Value openJournal(const Napi::CallbackInfo& info) {
    const Napi::Object object = journalClass_.New({});
    if (object.IsEmpty()) return info.Env().Undefined();
    if (!JournalObject::Unwrap(object)->open(info, link_)) return info.Env().Undefined();
    return object;
  }

  Napi::Value openVolume(const Napi::CallbackInfo& info) {
    const Napi::Object object = volumeClass_.New({});
    if (object.IsEmpty()) return info.Env().Undefined();
    if (!VolumeObject::Unwrap(object)->open(info, link_, journalClass_.Value())) return info.Env().Undefined();
    return object;
  }

  Napi::Value openPool(const Napi::CallbackInfo& info) {
    const Napi::Object object = poolClass_.New({});
    if (object.IsEmpty()) return info.Env().Undefined();
    if (!PoolObject::Unwrap(object)->open(info, link_)) return info.Env().Undefined();
    return object;
  }

  Napi::Value openRegions(const Napi::CallbackInfo& info) {
    const Napi::Object object = regionClass_.New({});
    if (object.IsEmpty()) return info.Env().Undefined();
    if (!RegionObject::Unwrap(object)->open(info, link_)) return info.Env().Undefined();
    return object;
  }

  Napi::Value javascriptCalls(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(JsLink::javascriptCalls()));
  }

  Napi::Value protectThisProcess(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!info[0].IsString() || !info[1].IsArray()) {
      return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "protectProcess() needs a program and its words"});
    }
    const auto array = info[1].As<Napi::Array>();
    std::vector<std::string> words;
    for (uint32_t index = 0; index < array.Length(); index++) words.push_back(array.Get(index).ToString().Utf8Value());
    const ProcessMemory memory = protectProcess(info[0].As<Napi::String>().Utf8Value(), std::move(words));
    Napi::Object object = Napi::Object::New(env);
    object.Set("flusher", Napi::Boolean::New(env, memory.flusher));
    object.Set("locked", Napi::Boolean::New(env, memory.locked));
    object.Set("score", Napi::Boolean::New(env, memory.score));
    return object;
  }

  Napi::Value releaseStale(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!info[0].IsString()) {
      return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "releaseStale() needs a mount point"});
    }
    const std::string mountPoint = info[0].As<Napi::String>().Utf8Value();
    return callLongVoid(env, link_, [mountPoint]() -> Result<void> {
      // A device that a host waits at is not stale.
      if (keeperHas(kernelPath(mountPoint))) return {};
      return releaseStaleMount(mountPoint);
    });
  }

  Napi::Value openKeeper(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    JsOptions given(info[0]);
    const std::string directory = given.text("directory");
    const Napi::Function onEvent = given.function("onEvent", true);
    if (given.error()) return throwError(env, *given.error());
    onKeeperEvent_ = Napi::Persistent(onEvent);
    const auto self = std::make_shared<Addon*>(this);
    self_ = self;
    return callLong<std::vector<std::string>>(
        env, link_,
        [link = link_, self, directory] {
          return keeperOpen(directory, [link, self](const KeeperEvent& event) {
            link->post([self, event](Napi::Env inner) {
              if (*self != nullptr) (*self)->deliver(inner, event);
            });
          });
        },
        [](Napi::Env inner, std::vector<std::string>& mountPoints) -> Napi::Value {
          Napi::Array array = Napi::Array::New(inner, mountPoints.size());
          for (uint32_t index = 0; index < mountPoints.size(); index++) {
            array.Set(index, Napi::String::New(inner, mountPoints[index]));
          }
          return array;
        });
  }

  Napi::Value giveUpKept(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!info[0].IsString()) {
      return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "giveUpKept() needs a mount point"});
    }
    const std::string mountPoint = info[0].As<Napi::String>().Utf8Value();
    return callLongVoid(env, link_, [mountPoint]() -> Result<void> {
      const std::optional<KeptConnection> kept = keeperClaim(kernelPath(mountPoint));
      if (!kept) return {};
      abortConnection(kept->connectionSwitch);
      keeperForget(kept->facts.connection);
      return releaseStaleMount(mountPoint);
    });
  }

  void deliver(const Napi::Env& env, const KeeperEvent& event) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("kind", event.kind == KeeperEvent::Kind::kReplaced ? "replaced" : "failed");
    object.Set("message", event.message);
    onKeeperEvent_.Call({object});
  }

  std::shared_ptr<JsLink> link_;
  /** Null once the environment ends: the keeper's thread outlives it. */
  std::shared_ptr<Addon*> self_;
  Napi::FunctionReference onKeeperEvent_;
  Napi::FunctionReference journalClass_;
  Napi::FunctionReference volumeClass_;
  Napi::FunctionReference poolClass_;
  Napi::FunctionReference regionClass_;
};

NODE_API_ADDON(Addon)

}  // namespace tidemark

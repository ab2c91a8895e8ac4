// SPDX-License-Identifier: Apache-2.0
#include "journal_object.h"

#include <cstring>

#include "js_options.h"

namespace tidemark {
namespace {

Napi::Value bigInt(Napi::Env env, uint64_t value) { return Napi::BigInt::New(env, value); }

Napi::Value number(Napi::Env env, uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

}  // namespace

Napi::Function JournalObject::define(Napi::Env env) {
  return DefineClass(env, "NativeJournal",
                     {InstanceMethod<&JournalObject::counters>("counters"),
                      InstanceMethod<&JournalObject::sync>("sync"), InstanceMethod<&JournalObject::trim>("trim"),
                      InstanceMethod<&JournalObject::appendMarker>("appendMarker"),
                      InstanceMethod<&JournalObject::doubt>("doubt"),
                      InstanceMethod<&JournalObject::refuse>("refuse"),
                      InstanceMethod<&JournalObject::abandon>("abandon"),
                      InstanceMethod<&JournalObject::close>("close")});
}

JournalObject::JournalObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<JournalObject>(info) {
  self_ = std::make_shared<JournalObject*>(this);
}

JournalObject::~JournalObject() {
  *self_ = nullptr;
  // Only an environment that ends with the journal open comes here: the process is about to exit, and waiting for
  // writers that are held up would keep it from doing so. What is mapped reaches the page cache all the same.
  if (journal_ != nullptr) new std::shared_ptr<Journal>(std::move(journal_));
}

bool JournalObject::open(const Napi::CallbackInfo& info, std::shared_ptr<JsLink> link) {
  const Napi::Env env = info.Env();
  JsOptions given(info[0]);
  JournalOptions options;
  options.directory = given.text("directory");
  options.segmentBytes = static_cast<uint64_t>(given.number("segmentBytes", 1 << 20, int64_t{1} << 40));
  options.spareSegments = static_cast<uint32_t>(given.number("spareSegments", 1, 1024));
  options.limitBytes = static_cast<uint64_t>(given.number("limitBytes", 0, kSafeInteger));
  options.startLsn = given.lsn("startLsn");
  options.incarnation = static_cast<uint32_t>(given.number("incarnation", 0, 0xffffffff));
  const Napi::Function onEvent = given.function("onEvent", true);
  const Napi::Value id = given.field("journalId");
  if (!id.IsEmpty() && id.IsBuffer() && id.As<Napi::Buffer<uint8_t>>().Length() == options.journalId.size()) {
    std::memcpy(options.journalId.data(), id.As<Napi::Buffer<uint8_t>>().Data(), options.journalId.size());
  } else {
    given.reject("journalId", "a Buffer of 16 bytes");
  }
  if (given.error()) {
    throwError(env, *given.error());
    return false;
  }
  link_ = std::move(link);
  onEvent_ = Napi::Persistent(onEvent);
  // The journal may outlive this object, when the environment ends with it open.
  options.onEvent = [link = link_, self = self_](const JournalEvent& event) {
    link->post([self, event](Napi::Env inner) {
      if (*self != nullptr) (*self)->deliver(inner, event);
    });
  };
  auto journal = Journal::open(std::move(options));
  if (!journal) {
    throwError(env, journal.error());
    return false;
  }
  journal_ = journal.take();
  Ref();
  return true;
}

void JournalObject::deliver(Napi::Env env, const JournalEvent& event) {
  if (onEvent_.IsEmpty()) return;
  Napi::Object object = Napi::Object::New(env);
  if (event.kind == JournalEvent::Kind::kFull) {
    object.Set("kind", "full");
  } else {
    object.Set("kind", "failed");
    object.Set("code", event.error.code);
    object.Set("errno", event.error.errnoValue);
    object.Set("message", event.error.message);
  }
  onEvent_.Call({object});
}

bool JournalObject::isOpen(Napi::Env env) const {
  if (journal_ != nullptr && !closing_) return true;
  throwError(env, Error{"JOURNAL_CLOSED", 0, "the journal is closed"});
  return false;
}

Napi::Value JournalObject::counters(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  const JournalCounters counters = journal_->counters();
  Napi::Object object = Napi::Object::New(env);
  object.Set("publishedLsn", bigInt(env, counters.publishedLsn));
  object.Set("durableLsn", bigInt(env, counters.durableLsn));
  object.Set("appliedLsn", bigInt(env, counters.appliedLsn));
  object.Set("records", number(env, counters.records));
  object.Set("payloadBytes", number(env, counters.payloadBytes));
  object.Set("segments", number(env, counters.segments));
  object.Set("syncs", number(env, counters.syncs));
  return object;
}

Napi::Value JournalObject::sync(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  const Settlement settlement(env, link_);
  if (!settlement.ok()) return settlement.promise();
  journal_->sync([settlement](uint64_t durableLsn, const Error* error) {
    settlement.settle(error != nullptr ? std::optional<Error>(*error) : std::nullopt,
                      [durableLsn](Napi::Env inner) { return bigInt(inner, durableLsn); });
  });
  return settlement.promise();
}

Napi::Value JournalObject::trim(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  const std::optional<uint64_t> below = lsnOf(info[0]);
  if (!below) return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "trim() needs an LSN"});
  journal_->trim(*below);
  return env.Undefined();
}

Napi::Value JournalObject::appendMarker(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  if (!info[0].IsBuffer()) return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "a marker's payload is a Buffer"});
  const auto buffer = info[0].As<Napi::Buffer<uint8_t>>();
  if (buffer.Length() > kMarkerPayloadLimitBytes) {
    return throwError(env, Error{"INVALID_ARGUMENT", EINVAL, "a marker's payload has 64 KiB at the most"});
  }
  auto payload = std::make_shared<std::vector<uint8_t>>(buffer.Data(), buffer.Data() + buffer.Length());
  // Let go of before the promise settles, so that a close() that follows finds no user.
  auto moved = std::make_shared<std::shared_ptr<Journal>>(journal_);
  return callLong<uint64_t>(
      env, link_,
      [moved, payload] {
        const std::shared_ptr<Journal> journal = std::move(*moved);
        return journal->appendMarker(payload->data(), static_cast<uint32_t>(payload->size()));
      },
      [](Napi::Env inner, uint64_t& lsn) { return bigInt(inner, lsn); });
}

Napi::Value JournalObject::doubt(const Napi::CallbackInfo& info) {
  if (isOpen(info.Env())) journal_->doubt(info[0].ToBoolean().Value());
  return info.Env().Undefined();
}

Napi::Value JournalObject::refuse(const Napi::CallbackInfo& info) {
  if (isOpen(info.Env())) journal_->refuse(info[0].ToBoolean().Value());
  return info.Env().Undefined();
}

Napi::Value JournalObject::abandon(const Napi::CallbackInfo& info) {
  if (isOpen(info.Env())) journal_->abandon();
  return info.Env().Undefined();
}

Napi::Value JournalObject::close(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!isOpen(env)) return env.Undefined();
  // Volumes and markers under way hold it too.
  if (journal_.use_count() > 1) {
    const Settlement refused(env, link_);
    if (refused.ok()) refused.settle(Error{"JOURNAL_IN_USE", EBUSY, "a volume still writes to the journal"}, nullptr);
    return refused.promise();
  }
  // A close that is refused for too many calls has not begun: it can be asked for again.
  closing_ = !link_->isFull();
  return callLongVoid(
      env, link_, [journal = journal_] { return journal->close(); },
      [self = self_](Napi::Env, bool) {
        if (*self == nullptr) return;
        (*self)->journal_.reset();
        (*self)->onEvent_.Reset();
        (*self)->Unref();
      });
}

}  // namespace tidemark

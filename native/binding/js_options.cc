// SPDX-License-Identifier: Apache-2.0
#include "js_options.h"

#include <cmath>

#include "js_link.h"

namespace tidemark {

JsOptions::JsOptions(const Napi::Value& value) {
  if (value.IsObject()) {
    object_ = value.As<Napi::Object>();
  } else {
    error_ = Error{"INVALID_ARGUMENT", EINVAL, "options must be an object"};
  }
}

void JsOptions::reject(const char* name, const char* expected) {
  if (!error_) error_ = Error{"INVALID_ARGUMENT", EINVAL, std::string(name) + " must be " + expected};
}

Napi::Value JsOptions::field(const char* name) { return object_.IsEmpty() ? Napi::Value() : object_.Get(name); }

std::string JsOptions::text(const char* name) {
  const Napi::Value value = field(name);
  if (!value.IsEmpty() && value.IsString()) {
    std::string text = value.As<Napi::String>().Utf8Value();
    // The kernel would silently cut a path there.
    if (text.find('\0') == std::string::npos) return text;
  }
  reject(name, "a string without NUL");
  return "";
}

int64_t JsOptions::number(const char* name, int64_t minimum, int64_t maximum) {
  const std::optional<int64_t> found = optionalNumber(name, minimum, maximum);
  if (!found) reject(name, "a number");
  return found.value_or(minimum);
}

std::optional<int64_t> JsOptions::optionalNumber(const char* name, int64_t minimum, int64_t maximum) {
  const Napi::Value value = field(name);
  if (value.IsEmpty() || value.IsUndefined()) return std::nullopt;
  if (value.IsNumber()) {
    const double number = value.As<Napi::Number>().DoubleValue();
    if (std::trunc(number) == number && number >= static_cast<double>(minimum) &&
        number <= static_cast<double>(maximum)) {
      return static_cast<int64_t>(number);
    }
  }
  reject(name, ("a whole number from " + std::to_string(minimum) + " to " + std::to_string(maximum)).c_str());
  return minimum;
}

bool JsOptions::flag(const char* name) {
  const Napi::Value value = field(name);
  if (!value.IsEmpty() && value.IsBoolean()) return value.As<Napi::Boolean>().Value();
  reject(name, "true or false");
  return false;
}

uint64_t JsOptions::lsn(const char* name) {
  const std::optional<uint64_t> found = lsnOf(field(name));
  if (!found) reject(name, "a BigInt that fits 64 bits");
  return found.value_or(0);
}

Napi::Function JsOptions::function(const char* name, bool required) {
  const Napi::Value value = field(name);
  if (!value.IsEmpty() && value.IsFunction()) return value.As<Napi::Function>();
  if (required || (!value.IsEmpty() && !value.IsUndefined())) reject(name, "a function");
  return Napi::Function();
}

Napi::Value throwError(Napi::Env env, const Error& error) {
  makeError(env, error).ThrowAsJavaScriptException();
  return env.Undefined();
}

std::optional<uint64_t> lsnOf(const Napi::Value& value) {
  if (value.IsEmpty() || !value.IsBigInt()) return std::nullopt;
  bool lossless = false;
  const uint64_t number = value.As<Napi::BigInt>().Uint64Value(&lossless);
  return lossless ? std::optional(number) : std::nullopt;
}

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <cstdint>
#include <optional>
#include <string>

#include "../sys/result.h"

namespace tidemark {

/**
 * Reads the fields of an options object and remembers the first that is not what it should be. TypeScript has checked
 * the types already; this keeps a mistake there from becoming undefined behaviour here.
 */
class JsOptions {
 public:
  explicit JsOptions(const Napi::Value& value);

  std::string text(const char* name);
  /** A whole number from `minimum` to `maximum`, within 2^53. */
  int64_t number(const char* name, int64_t minimum, int64_t maximum);
  std::optional<int64_t> optionalNumber(const char* name, int64_t minimum, int64_t maximum);
  bool flag(const char* name);
  uint64_t lsn(const char* name);
  Napi::Function function(const char* name, bool required);
  Napi::Value field(const char* name);

  void reject(const char* name, const char* expected);
  const std::optional<Error>& error() const { return error_; }

 private:
  Napi::Object object_;
  std::optional<Error> error_;
};

/** Throw it in JavaScript when this call returns. */
Napi::Value throwError(Napi::Env env, const Error& error);

/** A BigInt that fits 64 bits unsigned. */
std::optional<uint64_t> lsnOf(const Napi::Value& value);

constexpr int64_t kSafeInteger = (int64_t{1} << 53) - 1;

}  // namespace tidemark

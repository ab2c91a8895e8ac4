// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace tidemark {

/**
 * Anything a disk, the kernel or an operator can cause. Crosses into JavaScript as { code, errno, message }.
 *
 * Branch on `code`, never on text. Broken invariants are assert(), not this.
 */
struct Error {
  /** Upper snake case: `DEVICE_BUSY`, `NOT_FOUND`, `IO_FAILED`... */
  std::string code;
  /** The kernel's errno, 0 when there is none. */
  int errnoValue = 0;
  std::string message;

  /** The usual case: `what` failed with this errno. Take errno at the call: later calls overwrite it. */
  static Error fromErrno(std::string code, const std::string& what, int errnoValue) {
    return Error{std::move(code), errnoValue, what + ": " + std::strerror(errnoValue)};
  }
};

/** A value or an Error. */
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() {
    assert(ok());
    return *std::get_if<0>(&state_);
  }
  const T& value() const {
    assert(ok());
    return *std::get_if<0>(&state_);
  }
  T& operator*() { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T take() { return std::move(value()); }

  Error& error() {
    assert(!ok());
    return *std::get_if<1>(&state_);
  }
  const Error& error() const {
    assert(!ok());
    return *std::get_if<1>(&state_);
  }

 private:
  std::variant<T, Error> state_;
};

/** Done, or an Error. */
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}

  bool ok() const { return !error_; }
  explicit operator bool() const { return ok(); }
  Error& error() {
    assert(error_);
    return *error_;
  }
  const Error& error() const {
    assert(error_);
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

}  // namespace tidemark

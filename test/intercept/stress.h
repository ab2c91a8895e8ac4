// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>

#include "../../native/journal/journal.h"

/**
 * What both halves of the stress program are written with. A fact that does not hold ends it with exit code 1, at once:
 * what runs at an orderly end would wait for threads that wait for the device.
 */
namespace tidemark::stress {

inline void require(bool held, const char* what) {
  if (held) return;
  std::fprintf(stderr, "stress: %s (errno %s)\n", what, std::strerror(errno));
  std::_Exit(1);
}

template <typename T>
T must(Result<T> result, const char* what) {
  if (!result) {
    const Error& error = result.error();
    std::fprintf(stderr, "stress: %s: %s %s\n", what, error.code.c_str(), error.message.c_str());
    std::_Exit(1);
  }
  if constexpr (!std::is_void_v<T>) return result.take();
}

/** An empty regular file of this size. */
void makeFile(const std::string& path, uint64_t bytes);
std::shared_ptr<Journal> openJournal(const std::string& folder);

/** A pool with one thin volume, hosts at work on it and snapshots in between; checks all that can be read. */
void runThin(const std::string& folder);

}  // namespace tidemark::stress

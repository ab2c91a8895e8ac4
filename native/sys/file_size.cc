// SPDX-License-Identifier: Apache-2.0
#include "file_size.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>

namespace tidemark {
namespace {

constexpr auto patience = std::chrono::seconds(2);

}  // namespace

int askForSize(const char* path, uint64_t sizeBytes) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    struct statx status;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_STATX_FORCE_SYNC, STATX_SIZE, &status) != 0) return errno;
    // That was the answer. What the kernel made of it, and a loop device sees:
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC, STATX_SIZE, &status) != 0) return errno;
    if (status.stx_size == sizeBytes) return 0;
    if (std::chrono::steady_clock::now() >= deadline) return EAGAIN;
  }
}

}  // namespace tidemark

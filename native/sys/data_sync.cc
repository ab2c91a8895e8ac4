// SPDX-License-Identifier: Apache-2.0
#include "data_sync.h"

#include <linux/magic.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>

namespace tidemark {
namespace {

constexpr const char* absentAttribute = "user.tidemark.absent";

/** The file system takes changes still, as far as it can be asked. */
int askForChange(int fd) {
  if (fremovexattr(fd, absentAttribute) == 0) return 0;
  switch (errno) {
    case ENODATA:
    // Mounted without attributes; not allowed.
    case EOPNOTSUPP:
    case EPERM:
    case EACCES:
      return 0;
    default:
      return errno;
  }
}

}  // namespace

int syncData(int fd) {
  while (fdatasync(fd) != 0) {
    if (errno != EINTR) return errno;
  }
  struct statfs system {};
  const bool mayLie = fstatfs(fd, &system) == 0 && system.f_type == EXT4_SUPER_MAGIC;
  return mayLie ? askForChange(fd) : 0;
}

}  // namespace tidemark

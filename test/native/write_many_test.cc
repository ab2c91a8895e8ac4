// SPDX-License-Identifier: Apache-2.0
#include "../../native/sys/write_many.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "../../native/sys/unique_fd.h"
#include "../../native/sys/write_batch.h"
#include "check.h"

using namespace tidemark;

namespace {

/** Set: every file is one of a FUSE file system, which answers so when an attribute is set; 0 as one that keeps it. */
struct Foreign {
  int toQuestion;
  int toBatch;
};
const Foreign* foreign = nullptr;
int batches = 0;

}  // namespace

extern "C" int fstatfs(int fd, struct statfs* facts) noexcept {
  static const auto real = reinterpret_cast<int (*)(int, struct statfs*)>(dlsym(RTLD_NEXT, "fstatfs"));
  const int result = real(fd, facts);
  if (foreign != nullptr) facts->f_type = FUSE_SUPER_MAGIC;
  return result;
}

extern "C" int fsetxattr(int fd, const char* name, const void* value, size_t size, int flags) noexcept {
  static const auto real =
      reinterpret_cast<int (*)(int, const char*, const void*, size_t, int)>(dlsym(RTLD_NEXT, "fsetxattr"));
  if (foreign == nullptr) return real(fd, name, value, size, flags);
  const bool asks = size == sizeof kWriteBatchQuestion;
  if (!asks) ++batches;
  errno = asks ? foreign->toQuestion : foreign->toBatch;
  return errno == 0 ? 0 : -1;
}

TEST("a file of another file system is written itself, whatever that says to an attribute; so is what a batch did not take") {
  struct Case {
    Foreign answers;
    int batches;
  };
  for (const Case& each : {Case{{0, 0}, 0}, Case{{ENODATA, 0}, 0}, Case{{EOPNOTSUPP, 0}, 0}, Case{{EALREADY, EINVAL}, 3}}) {
    test::TemporaryFolder folder;
    const UniqueFd file(open((folder.path() + "/file").c_str(), O_RDWR | O_CREAT, 0600));
    const std::string page(4096, 'p');
    std::vector<FileWrite> writes;
    for (int64_t at = 0; at < 40; ++at) {
      writes.push_back({reinterpret_cast<const uint8_t*>(page.data()), page.size(), at * 4096});
    }
    foreign = &each.answers;
    batches = 0;
    const int failed = writeMany(file.get(), writes.data(), writes.size());
    foreign = nullptr;
    CHECK(failed == 0 && batches == each.batches);
    std::string all(40 * 4096, '-');
    CHECK(pread(file.get(), all.data(), all.size(), 0) == static_cast<ssize_t>(all.size()));
    CHECK(all == std::string(all.size(), 'p'));
  }
}

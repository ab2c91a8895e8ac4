// SPDX-License-Identifier: Apache-2.0
#include "write_many.h"

#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

namespace tidemark {

namespace {

/** The kernel splits what needs more than 256 pages of memory that begins anywhere, at odd lengths: a front end takes sectors. */
constexpr size_t pieceBytes = 512 * 1024;
/** Of a served file: one is answered while others are on their way. */
constexpr size_t threadLimit = 4;
/** Fewer are written sooner than a thread begins. */
constexpr size_t writesPerThread = 8;

bool isServed(int fd) {
  struct statfs facts;
  return fstatfs(fd, &facts) == 0 && facts.f_type == FUSE_SUPER_MAGIC;
}

int writeOne(int fd, const FileWrite& write) {
  for (size_t done = 0; done < write.length;) {
    const size_t piece = std::min(pieceBytes, write.length - done);
    const ssize_t put = pwrite(fd, write.bytes + done, piece, write.offset + static_cast<int64_t>(done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return put < 0 ? errno : EIO;
    done += static_cast<size_t>(put);
  }
  return 0;
}

struct Work {
  int fd;
  const FileWrite* writes;
  size_t count;
  std::atomic<size_t> next{0};
  std::atomic<int> failed{0};
};

void* doShare(void* shared) {
  Work& work = *static_cast<Work*>(shared);
  for (size_t at; (at = work.next.fetch_add(1)) < work.count;) {
    const int error = writeOne(work.fd, work.writes[at]);
    if (error != 0) work.failed.store(error);
  }
  return nullptr;
}

}  // namespace

int writeMany(int fd, const FileWrite* writes, size_t count) {
  Work work{fd, writes, count};
  pthread_t helpers[threadLimit - 1];
  size_t begun = 0;
  const size_t wanted = isServed(fd) ? std::min(threadLimit, count / writesPerThread) : 1;
  // Where no more threads are to be had those that there are do it.
  while (begun + 1 < wanted && pthread_create(&helpers[begun], nullptr, doShare, &work) == 0) begun++;
  doShare(&work);
  while (begun > 0) pthread_join(helpers[--begun], nullptr);
  return work.failed.load();
}

}  // namespace tidemark

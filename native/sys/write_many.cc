// SPDX-License-Identifier: Apache-2.0
#include "write_many.h"

#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <string.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "write_batch.h"

namespace tidemark {

namespace {

/** The kernel splits what needs more than 256 pages of memory that begins anywhere, at odd lengths: a front end takes sectors. */
constexpr size_t pieceBytes = 512 * 1024;
/** Of a served file: one is answered while others are on their way. */
constexpr size_t threadLimit = 4;
/** Fewer are written sooner than a thread begins. */
constexpr size_t writesPerThread = 8;
/** Larger ones cost too little by themselves. */
constexpr size_t batchedBytes = 16 * 1024;

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

bool takesBatches(int fd) {
  return fsetxattr(fd, kWriteBatchName, kWriteBatchQuestion, sizeof kWriteBatchQuestion, XATTR_REPLACE) != 0 &&
         errno == EALREADY;
}

bool isBatched(const FileWrite& write) {
  return write.length != 0 && write.length <= batchedBytes &&
         (static_cast<uint64_t>(write.offset) | write.length) % kWriteBatchUnit == 0;
}

/** Writes that are one request: see write_batch.h. */
class Batch {
 public:
  explicit Batch(int fd) : fd_(fd), value_(kWriteBatchBytes) {}

  bool add(const FileWrite& write) {
    const size_t needed = bytes_ + write.length + (entries_.size() + 1) * sizeof(WriteBatchEntry) + sizeof(uint64_t);
    if (needed > kWriteBatchBytes) return false;
    memcpy(value_.data() + bytes_, write.bytes, write.length);
    bytes_ += write.length;
    entries_.push_back({static_cast<uint64_t>(write.offset), static_cast<uint32_t>(write.length), 0});
    return true;
  }

  /** Empty afterwards. False: not all of them are written. */
  bool send() {
    const uint64_t count = entries_.size();
    const size_t tableBytes = count * sizeof(WriteBatchEntry);
    memcpy(value_.data() + bytes_, entries_.data(), tableBytes);
    memcpy(value_.data() + bytes_ + tableBytes, &count, sizeof count);
    const size_t all = bytes_ + tableBytes + sizeof count;
    bytes_ = 0;
    entries_.clear();
    return fsetxattr(fd_, kWriteBatchName, value_.data(), all, 0) == 0;
  }

  bool isEmpty() const { return entries_.empty(); }

 private:
  int fd_;
  std::vector<uint8_t> value_;
  std::vector<WriteBatchEntry> entries_;
  size_t bytes_ = 0;
};

/** What can go in batches. Returns the rest, and what went wrong: it is written one by one, which tells what is the matter. */
std::vector<FileWrite> writeInBatches(int fd, const FileWrite* writes, size_t count) {
  std::vector<FileWrite> rest;
  std::vector<FileWrite> sent;
  Batch batch(fd);
  const auto send = [&] {
    if (!batch.isEmpty() && !batch.send()) rest.insert(rest.end(), sent.begin(), sent.end());
    sent.clear();
  };
  for (const FileWrite* write = writes; write != writes + count; write++) {
    if (!isBatched(*write)) {
      rest.push_back(*write);
      continue;
    }
    if (!batch.add(*write)) {
      send();
      batch.add(*write);
    }
    sent.push_back(*write);
  }
  send();
  return rest;
}

int writeEach(int fd, const FileWrite* writes, size_t count, size_t threads) {
  Work work{fd, writes, count};
  pthread_t helpers[threadLimit - 1];
  size_t begun = 0;
  // Where no more threads are to be had those that there are do it.
  while (begun + 1 < threads && pthread_create(&helpers[begun], nullptr, doShare, &work) == 0) begun++;
  doShare(&work);
  while (begun > 0) pthread_join(helpers[--begun], nullptr);
  return work.failed.load();
}

}  // namespace

int writeMany(int fd, const FileWrite* writes, size_t count) {
  if (count == 1 || !isServed(fd)) return writeEach(fd, writes, count, 1);
  const std::vector<FileWrite> rest =
      takesBatches(fd) ? writeInBatches(fd, writes, count) : std::vector<FileWrite>(writes, writes + count);
  return writeEach(fd, rest.data(), rest.size(), std::min(threadLimit, rest.size() / writesPerThread));
}

}  // namespace tidemark

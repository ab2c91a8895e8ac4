// SPDX-License-Identifier: Apache-2.0
#include "fuse_session.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <utility>

#include "../sys/keeper_program.h"
#include "../sys/mount_point.h"
#include "../sys/process_memory.h"
#include "../sys/signals_blocked.h"
#include "../sys/write_batch.h"
#include "receive_buffer.h"

namespace tidemark {
namespace {

constexpr size_t pageBytes = 4096;
constexpr uint64_t sectorBytes = 512;
/** Requests the kernel may have in flight for asynchronous I/O; the loop driver's queue is 128 deep. */
constexpr uint16_t maximumBackground = 512;
/** Attributes never change behind the kernel's back: resize() makes it ask. */
constexpr uint64_t attributeSeconds = 1 << 30;
constexpr uint32_t maximumThreads = 16;
static_assert(maximumThreads + 1 == kKeptDescriptorLimit);
/** Set in the environment: as on a kernel that sends nothing again. For tests. */
constexpr char withoutResend[] = "TIDEMARK_WITHOUT_RESEND";

/** A thread that got no request for so long gives its receive buffer back. */
constexpr int idleMs = 1'000;

bool send(int fd, const iovec* pieces, int count) {
  for (;;) {
    if (writev(fd, pieces, count) >= 0) return true;
    if (errno != EINTR) return false;  // ENOENT: interrupted; ENODEV, EPERM: the connection is gone.
  }
}

bool sendStruct(const Reply& reply, const void* body, size_t length) {
  fuse_out_header header{};
  header.len = static_cast<uint32_t>(sizeof header + length);
  header.unique = reply.unique;
  const iovec pieces[2] = {{&header, sizeof header}, {const_cast<void*>(body), length}};
  return send(reply.fd, pieces, 2);
}

/** No reader of a journal takes a record of anything else. */
bool isWholeSectors(uint64_t offset, uint64_t length) { return (offset | length) % sectorBytes == 0; }

template <typename T>
const T& as(const uint8_t* bytes) {
  return *reinterpret_cast<const T*>(bytes);
}

}  // namespace

std::shared_ptr<FuseSession> Reply::keep() const { return session->shared_from_this(); }

bool Reply::finish(int errnoValue) const {
  fuse_out_header header{};
  header.len = sizeof header;
  header.error = -errnoValue;
  header.unique = unique;
  const iovec piece{&header, sizeof header};
  return send(fd, &piece, 1);
}

bool Reply::written(uint32_t length) const {
  fuse_write_out body{};
  body.size = askedBytes != 0 ? askedBytes : length;
  return sendStruct(*this, &body, sizeof body);
}

bool Reply::data(uint8_t* bytes, uint32_t length) const {
  if (askedBytes != 0) {
    bytes += askedFrom;
    length = askedBytes;
  }
  auto* header = reinterpret_cast<fuse_out_header*>(bytes - sizeof(fuse_out_header));
  header->len = static_cast<uint32_t>(sizeof *header) + length;
  header->error = 0;
  header->unique = unique;
  const iovec piece{header, header->len};
  return send(fd, &piece, 1);
}

bool Reply::found(uint64_t offset) const {
  const fuse_lseek_out body{offset};
  return sendStruct(*this, &body, sizeof body);
}

Result<std::shared_ptr<FuseSession>> FuseSession::start(FuseSessionOptions options, RequestTarget& target) {
  assert(options.threads >= 1 && options.threads <= maximumThreads);
  // Random: filesystem and inode number name this session, although the kernel uses the former again.
  const uint64_t inode = uint64_t{1} << 32 | std::random_device()();
  std::shared_ptr<FuseSession> session(new FuseSession(std::move(options), inode, target));
  UniqueFd fd(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!fd) return Error::fromErrno("FUSE_UNAVAILABLE", "open /dev/fuse", errno);
  session->descriptors_.push_back(std::move(fd));
  Result<void> mounted = mountFuseFile(session->descriptors_[0].get(), session->options_.mountPoint);
  if (!mounted) return mounted.error();
  session->mounted_ = true;
  // From here on the destructor unmounts.
  Result<void> negotiated = session->negotiate();
  if (!negotiated) return negotiated.error();
  Result<UniqueFd> connectionSwitch = openConnectionSwitch(session->options_.mountPoint);
  if (!connectionSwitch) return connectionSwitch.error();
  session->connectionSwitch_ = connectionSwitch.take();
  Result<void> opened = session->openDescriptors();
  if (!opened) return opened.error();
  Result<void> waits = session->openWaits();
  if (!waits) return waits.error();
  session->handOver();
  session->startThreads();
  return session;
}

Result<std::shared_ptr<FuseSession>> FuseSession::takeOver(FuseSessionOptions options, KeptConnection kept,
                                                           RequestTarget& target) {
  std::shared_ptr<FuseSession> session(new FuseSession(std::move(options), kept.facts.connection, target));
  session->facts_ = kept.facts;
  session->sizeBytes_ = kept.facts.sizeBytes;
  session->descriptors_ = std::move(kept.descriptors);
  session->connectionSwitch_ = std::move(kept.connectionSwitch);
  session->mounted_ = true;
  Result<void> waits = session->openWaits();
  if (!waits) return waits.error();
  // Before anybody reads: what is read already would come twice.
  fuse_out_header resend{};
  resend.len = sizeof resend;
  resend.error = kFuseNotifyResend;
  const iovec piece{&resend, sizeof resend};
  if (!send(session->descriptors_[0].get(), &piece, 1)) {
    return Error::fromErrno("FUSE_UNAVAILABLE", "have requests sent again", errno);
  }
  session->startThreads();
  return session;
}

FuseSession::FuseSession(FuseSessionOptions options, uint64_t inode, RequestTarget& target)
    : options_(std::move(options)), sizeBytes_(options_.sizeBytes), target_(target) {
  facts_.connection = inode;
  facts_.readOnly = options_.readOnly ? 1 : 0;
  std::snprintf(facts_.name, sizeof facts_.name, "%s", options_.name.c_str());
  std::snprintf(facts_.mountPoint, sizeof facts_.mountPoint, "%s", kernelPath(options_.mountPoint).c_str());
}

FuseSession::~FuseSession() { abort(); }

void FuseSession::handOver() {
  facts_.sizeBytes = sizeBytes_;
  std::vector<int> numbers;
  for (const UniqueFd& fd : descriptors_) numbers.push_back(fd.get());
  numbers.push_back(connectionSwitch_.get());
  keeperHold(facts_, numbers);
}

void FuseSession::startThreads() {
  const SignalsBlocked blocked;
  for (size_t index = 0; index < descriptors_.size(); index++) {
    threads_.emplace_back([this, index] { serve(index); });
  }
}

bool FuseSession::keepFor(const LoopDevice& loop, bool loopReadOnly) {
  facts_.kept = (facts_.fuseFlags & kFuseHasResend) != 0 ? 1 : 0;
  facts_.served = 1;
  facts_.loopReadOnly = loopReadOnly ? 1 : 0;
  facts_.loopFilesystem = loop.filesystem();
  facts_.loopInode = loop.inode();
  std::snprintf(facts_.loop, sizeof facts_.loop, "%s", loop.path().c_str());
  keeperChange(facts_);
  return facts_.kept != 0;
}

void FuseSession::keepNoMore() {
  facts_.kept = 0;
  keeperChange(facts_);
}

Result<void> FuseSession::negotiate() {
  ReceiveBuffer buffer;
  if (!buffer.ok()) return Error{"FUSE_UNAVAILABLE", ENOMEM, "no memory for the request buffer"};
  const int fd = descriptors_[0].get();
  ssize_t got = 0;
  do {
    got = ::read(fd, buffer.head(), ReceiveBuffer::capacity);
  } while (got < 0 && (errno == EINTR || errno == ENOENT));
  if (got == 0) errno = ENODEV;
  if (got <= 0) return Error::fromErrno("FUSE_UNAVAILABLE", "read the kernel's first request", errno);
  const auto& header = as<fuse_in_header>(buffer.head());
  const auto& in = as<fuse_init_in>(buffer.head() + sizeof header);
  if (header.opcode != FUSE_INIT || in.major != FUSE_KERNEL_VERSION || in.minor < kFuseOldestMinor) {
    return Error{"FUSE_UNAVAILABLE", 0, "the kernel speaks another FUSE protocol; Linux 5.17 or newer is needed"};
  }
  const uint64_t offered = in.flags | ((in.flags & FUSE_INIT_EXT) != 0 ? uint64_t{in.flags2} << 32 : 0);
  const uint64_t wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_MAX_PAGES | FUSE_INIT_EXT |
                          FUSE_NO_OPENDIR_SUPPORT | FUSE_HANDLE_KILLPRIV |
                          (std::getenv(withoutResend) == nullptr ? kFuseHasResend : 0);
  const uint64_t agreed = offered & wanted;
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = kFuseMinor;
  out.max_readahead = in.max_readahead;
  out.flags = static_cast<uint32_t>(agreed);
  out.flags2 = static_cast<uint32_t>(agreed >> 32);
  out.max_background = maximumBackground;
  out.congestion_threshold = maximumBackground;
  out.max_write = kFuseTransferBytes;
  out.max_pages = kFuseTransferPages;
  out.time_gran = 1;
  const Reply reply{this, fd, header.unique};
  if (!sendStruct(reply, &out, sizeof out)) return Error::fromErrno("FUSE_UNAVAILABLE", "answer INIT", errno);
  facts_.fuseFlags = agreed;
  facts_.fuseMinor = std::min(in.minor, kFuseMinor);
  return {};
}

/**
 * A request wakes one of the threads that wait, which poll() would not do. Another may be first all the same: so descriptors do
 * not block, which holds for the next agent, too.
 */
Result<void> FuseSession::openWaits() {
  for (const UniqueFd& fd : descriptors_) {
    UniqueFd wait(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN | EPOLLEXCLUSIVE;
    const int flags = fcntl(fd.get(), F_GETFL);
    if (!wait || flags < 0 || fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0 ||
        epoll_ctl(wait.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) {
      return Error::fromErrno("FUSE_UNAVAILABLE", "wait for requests", errno);
    }
    waits_.push_back(std::move(wait));
  }
  return {};
}

Result<void> FuseSession::openDescriptors() {
  while (descriptors_.size() < options_.threads) {
    UniqueFd fd(open("/dev/fuse", O_RDWR | O_CLOEXEC));
    if (!fd) return Error::fromErrno("FUSE_UNAVAILABLE", "open /dev/fuse", errno);
    uint32_t source = static_cast<uint32_t>(descriptors_[0].get());
    if (ioctl(fd.get(), FUSE_DEV_IOC_CLONE, &source) != 0) {
      return Error::fromErrno("FUSE_UNAVAILABLE", "clone the FUSE descriptor", errno);
    }
    descriptors_.push_back(std::move(fd));
  }
  return {};
}

Result<void> FuseSession::stop() {
  stopping_ = true;
  Result<void> unmounted = unmountFuseFile(options_.mountPoint);
  if (!unmounted && unmounted.error().errnoValue == EBUSY) unmounted = unmountLazily(options_.mountPoint);
  if (!unmounted) {
    stopping_ = false;
    return unmounted;
  }
  mounted_ = false;
  abortConnection(connectionSwitch_);
  join();
  return {};
}

void FuseSession::abort() {
  stopping_ = true;
  if (mounted_) forceUnmount(options_.mountPoint);
  mounted_ = false;
  abortConnection(connectionSwitch_);
  join();
}

void FuseSession::join() {
  keeperForget(facts_.connection);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void FuseSession::serve(size_t index) {
  char title[16];
  std::snprintf(title, sizeof title, "tm%zu %s", index, options_.name.c_str());
  pthread_setname_np(pthread_self(), title);
  protectThread();
  const int fd = descriptors_[index].get();
  ReceiveBuffer buffer;
  int failed = buffer.ok() ? 0 : ENOMEM;
  while (failed == 0) {
    epoll_event event;
    if (epoll_wait(waits_[index].get(), &event, 1, buffer.isPresent() ? idleMs : -1) == 0) {
      buffer.giveBack();
      continue;
    }
    if (!buffer.isPresent()) buffer.bring();
    const ssize_t got = ::read(fd, buffer.head(), ReceiveBuffer::capacity);
    if (got > 0) {
      dispatch(fd, buffer.head(), buffer.payload(), static_cast<size_t>(got));
    } else if (got == 0) {
      failed = ENODEV;
    } else if (errno != EINTR && errno != ENOENT && errno != EAGAIN) {
      failed = errno;
    }
  }
  if (stopping_ || lostSaid_.exchange(true)) return;
  target_.lost(failed == ENODEV ? "the kernel ended the FUSE connection"
                                : std::string("reading requests failed: ") + std::strerror(failed));
}

Result<void> FuseSession::resize(uint64_t sizeBytes) {
  sizeBytes_ = sizeBytes;
  facts_.sizeBytes = sizeBytes;
  Result<void> asked = askApart(options_.mountPoint, sizeBytes);
  if (asked) keeperChange(facts_);
  return asked;
}

struct fuse_attr FuseSession::attributes() const {
  struct fuse_attr attributes {};
  attributes.ino = facts_.connection;
  attributes.size = sizeBytes_;
  attributes.blocks = sizeBytes_ / sectorBytes;
  attributes.mode = S_IFREG | (options_.readOnly ? 0400u : 0600u);
  attributes.nlink = 1;
  attributes.blksize = pageBytes;
  return attributes;
}

void FuseSession::answerAttributes(const Reply& reply, bool isSetattr, const uint8_t* arguments) {
  if (isSetattr) {
    const auto& in = as<fuse_setattr_in>(arguments);
    if ((in.valid & FATTR_SIZE) != 0 && in.size != sizeBytes_) {
      reply.finish(EPERM);
      return;
    }
  }
  fuse_attr_out out{};
  out.attr_valid = attributeSeconds;
  out.attr = attributes();
  sendStruct(reply, &out, sizeof out);
}

bool FuseSession::isInside(uint64_t offset, uint64_t length) const {
  const uint64_t sizeBytes = sizeBytes_;
  return offset <= sizeBytes && length <= sizeBytes - offset;
}

void FuseSession::discard(const Reply& reply, const fuse_fallocate_in& range) {
  const bool punch = range.mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
  const bool zero = (range.mode & ~static_cast<uint32_t>(FALLOC_FL_KEEP_SIZE)) == FALLOC_FL_ZERO_RANGE;
  if (!punch && !zero) {
    reply.finish(EOPNOTSUPP);
  } else if (!isWholeSectors(range.offset, range.length)) {
    reply.finish(EINVAL);
  } else if (!isInside(range.offset, range.length)) {
    reply.finish(EFBIG);
  } else if (range.length == 0) {
    reply.finish(0);
  } else {
    target_.discard(reply, range.offset, range.length, zero);
  }
}

/**
 * Hosts reach the volume through the loop device, which knows whole sectors only. A program that opens the file itself
 * may ask for any bytes, and does: the kernel cuts a large request where the pages of the program's memory end. False:
 * nothing odd is taken.
 */
bool FuseSession::stretch(Reply& reply, uint64_t& offset, uint32_t& length) const {
  if (options_.stretchBytes == 0) return isWholeSectors(offset, length);
  const uint64_t begin = offset - offset % options_.stretchBytes;
  const uint64_t end = (offset + length + options_.stretchBytes - 1) / options_.stretchBytes * options_.stretchBytes;
  if (end - begin == length) return true;
  reply.askedBytes = length;
  reply.askedFrom = static_cast<uint32_t>(offset - begin);
  offset = begin;
  length = static_cast<uint32_t>(end - begin);
  return true;
}

void FuseSession::read(Reply reply, const fuse_read_in& in, uint8_t* buffer) {
  const uint64_t sizeBytes = sizeBytes_;
  const uint64_t left = in.offset < sizeBytes ? sizeBytes - in.offset : 0;
  uint64_t offset = in.offset;
  auto length = static_cast<uint32_t>(std::min<uint64_t>({in.size, left, kFuseTransferBytes}));
  if (length == 0 && (options_.stretchBytes != 0 || isWholeSectors(in.offset, in.size))) {
    reply.data(buffer, 0);
  } else if (!stretch(reply, offset, length)) {
    reply.finish(EINVAL);
  } else {
    target_.read(reply, offset, length, buffer);
  }
}

void FuseSession::write(Reply reply, const fuse_write_in& in, uint8_t* payload) {
  uint64_t offset = in.offset;
  uint32_t length = in.size;
  if (length == 0) {
    reply.written(0);
  } else if (!stretch(reply, offset, length)) {
    reply.finish(EINVAL);
  } else if (!isInside(in.offset, in.size)) {
    reply.finish(EFBIG);
  } else {
    if (reply.askedFrom != 0) std::memmove(payload + reply.askedFrom, payload, in.size);
    target_.write(reply, offset, payload, length);
  }
}

/** `arguments`: what is set, its name, its value; so many bytes. */
void FuseSession::writeBatch(const Reply& reply, const uint8_t* arguments, size_t length, uint8_t* payload) {
  // The kernel's structure ends there unless FUSE_SETXATTR_EXT was agreed on.
  constexpr size_t headBytes = FUSE_COMPAT_SETXATTR_IN_SIZE + sizeof kWriteBatchName;
  uint64_t count = 0;
  if (length < headBytes ||
      std::memcmp(arguments + FUSE_COMPAT_SETXATTR_IN_SIZE, kWriteBatchName, sizeof kWriteBatchName) != 0) {
    reply.finish(EOPNOTSUPP);
    return;
  }
  size_t left = length - headBytes;
  if (left < sizeof count) {
    const bool asks = left == sizeof kWriteBatchQuestion &&
                      std::memcmp(arguments + headBytes, kWriteBatchQuestion, sizeof kWriteBatchQuestion) == 0;
    reply.finish(asks ? EALREADY : EINVAL);
    return;
  }
  std::memmove(payload, arguments + headBytes, left);
  left -= sizeof count;
  std::memcpy(&count, payload + left, sizeof count);
  if (count == 0 || count > left / sizeof(WriteBatchEntry)) {
    reply.finish(EINVAL);
    return;
  }
  left -= count * sizeof(WriteBatchEntry);
  std::vector<WriteBatchEntry> entries(count);
  std::memcpy(entries.data(), payload + left, count * sizeof(WriteBatchEntry));
  std::vector<BatchedWrite> writes;
  size_t at = 0;
  for (const WriteBatchEntry& entry : entries) {
    const bool whole = entry.zero == 0 && entry.length != 0 && (entry.offset | entry.length) % kWriteBatchUnit == 0;
    if (!whole || entry.length > left - at || !isInside(entry.offset, entry.length)) {
      reply.finish(EINVAL);
      return;
    }
    writes.push_back({entry.offset, payload + at, entry.length});
    at += entry.length;
  }
  if (at != left) {
    reply.finish(EINVAL);
    return;
  }
  target_.writeMany(reply, writes);
}

void FuseSession::dispatch(int fd, uint8_t* head, uint8_t* payload, size_t length) {
  const auto& header = as<fuse_in_header>(head);
  assert(length >= sizeof header && length == header.len);
  const Reply reply{this, fd, header.unique};
  const uint8_t* arguments = head + sizeof header;
  switch (header.opcode) {
    case FUSE_WRITE:
      write(reply, as<fuse_write_in>(arguments), payload);
      break;
    case FUSE_READ:
      read(reply, as<fuse_read_in>(arguments), payload);
      break;
    case FUSE_SETXATTR:
      if (options_.takesBatches) {
        writeBatch(reply, arguments, length - sizeof header, payload);
      } else {
        reply.finish(ENOSYS);
      }
      break;
    case FUSE_FSYNC:
      target_.flush(reply);
      break;
    case FUSE_FALLOCATE:
      discard(reply, as<fuse_fallocate_in>(arguments));
      break;
    case FUSE_LSEEK: {
      const auto& in = as<fuse_lseek_in>(arguments);
      target_.seek(reply, in.offset, static_cast<int>(in.whence));
      break;
    }
    case FUSE_GETATTR:
    case FUSE_SETATTR:
      answerAttributes(reply, header.opcode == FUSE_SETATTR, arguments);
      break;
    case FUSE_OPEN: {
      fuse_open_out out{};
      out.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES | FOPEN_NOFLUSH;
      sendStruct(reply, &out, sizeof out);
      break;
    }
    case FUSE_STATFS: {
      fuse_statfs_out out{};
      // The loop driver takes bsize for the granularity of discards.
      out.st.bsize = options_.discardBytes;
      out.st.frsize = pageBytes;
      out.st.blocks = sizeBytes_ / pageBytes;
      out.st.namelen = 255;
      sendStruct(reply, &out, sizeof out);
      break;
    }
    case FUSE_FLUSH:
    case FUSE_RELEASE:
    case FUSE_ACCESS:
    case FUSE_DESTROY:
      reply.finish(0);
      break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
      break;  // Never answered.
    default:
      // INTERRUPT too: the kernel then stops asking. What is in flight is finished, never cut short.
      reply.finish(ENOSYS);
      break;
  }
}

}  // namespace tidemark

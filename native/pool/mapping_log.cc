// SPDX-License-Identifier: Apache-2.0
#include "mapping_log.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "../sys/crc32c.h"

namespace tidemark {
namespace {

constexpr uint64_t typeShift = 56;
constexpr uint64_t pagePlaces = kLogPageBytes / kLogPlaceBytes;
/** The checksum is over what follows it. */
constexpr size_t sealedFrom = sizeof(uint32_t);
/** Room for records that wait in take(), made at the beginning. */
constexpr uint64_t waitingPlaces = 2 * kLogTakeMark;

int writeFully(int fd, const void* bytes, size_t length, uint64_t offset) {
  const auto* at = static_cast<const uint8_t*>(bytes);
  while (length > 0) {
    const ssize_t done = pwrite(fd, at, length, static_cast<off_t>(offset));
    if (done < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    if (done == 0) return EIO;
    at += done;
    offset += static_cast<uint64_t>(done);
    length -= static_cast<size_t>(done);
  }
  return 0;
}

/** On a shared mapping msync() is an fdatasync of just this range of the file. */
int syncRange(int fd, void* from, size_t length) {
  while ((from == nullptr ? fdatasync(fd) : msync(from, length, MS_SYNC)) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

/**
 * What is in the page cache, in large folios after it was read in one go, leaves it: a record costs as much as its folio has blocks.
 * Only the page that is written next comes back. Waits for nothing: what was not written out yet stays, and is slower.
 */
void dropCache(int fd, uint64_t offset, uint64_t bytes, uint64_t nextPage) {
  posix_fadvise(fd, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
  posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
  posix_fadvise(fd, static_cast<off_t>(nextPage), kLogPageBytes, POSIX_FADV_WILLNEED);
}

uint64_t reserveOf(uint64_t capacity) { return std::max(kLogReserveMinimum, capacity / 16); }

LogRecordType typeOf(const LogRecord& record) { return static_cast<LogRecordType>(record.subjectAndType >> typeShift); }

uint64_t textPlaces(const LogRecord& operation) { return (operation.layer + kLogPlaceBytes - 1) / kLogPlaceBytes; }

}  // namespace

struct MappingLog::Raised {
  bool appended = false;
  bool filling = false;
  bool full = false;
  std::string failed;
};

Result<std::unique_ptr<MappingLog>> MappingLog::open(MappingLogOptions options) {
  const uint64_t bytes = options.capacityRecords * kLogPlaceBytes;
  if (options.capacityRecords < kLogCapacityMinimum || options.capacityRecords > uint64_t{1} << 40 ||
      bytes % kLogPageBytes != 0 || options.offset % kLogPageBytes != 0) {
    return Error{"INVALID_ARGUMENT", EINVAL, "the log is whole pages of 4 KiB, 32 of them at the least"};
  }
  if (options.tail > options.head || options.head - options.tail > options.capacityRecords) {
    return Error{"INVALID_ARGUMENT", EINVAL, "the log's head and tail do not fit its ring"};
  }
  std::unique_ptr<MappingLog> log(new MappingLog(std::move(options)));
  const MappingLogOptions& kept = log->options_;
  void* ring = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, kept.fd.get(), static_cast<off_t>(kept.offset));
  if (ring != MAP_FAILED) log->ring_ = ring;
  const uint64_t next = kept.head % kept.capacityRecords / pagePlaces * kLogPageBytes;
  dropCache(kept.fd.get(), kept.offset, bytes, kept.offset + next);
  return log;
}

MappingLog::MappingLog(MappingLogOptions options)
    : options_(std::move(options)),
      publisherLimit_(options_.capacityRecords - reserveOf(options_.capacityRecords)),
      appendLimit_(options_.capacityRecords - kLogCommitReserve),
      seedCrc_(crc32c(&options_.seed, sizeof options_.seed)),
      head_(options_.head),
      tail_(options_.tail),
      taken_(options_.head),
      fillingFrom_(options_.tail),
      committed_(options_.head),
      accounted_(options_.head),
      writtenThrough_(options_.head) {
  waiting_.reserve(waitingPlaces * kLogPlaceBytes);
  if (!options_.system.write) options_.system.write = writeFully;
  if (!options_.system.sync) options_.system.sync = syncRange;
}

MappingLog::~MappingLog() {
  close();
  if (ring_ != nullptr) munmap(ring_, options_.capacityRecords * kLogPlaceBytes);
}

void MappingLog::seal(LogRecord& record, uint64_t sequence) const {
  record.sequence = sequence;
  const auto* bytes = reinterpret_cast<const uint8_t*>(&record);
  record.crc = crc32c(bytes + sealedFrom, sizeof record - sealedFrom, seedCrc_);
}

/**
 * Places from `index` on will be written, `count` of them, the first of them `sequence`: the page they end in is made zeros if they
 * enter it and nothing in it is needed any more. *A part of a page that is not in memory could only be written once the disk
 * has been read.* 0 or an errno.
 */
int MappingLog::enterPage(uint64_t index, uint64_t count, uint64_t sequence) const {
  static constexpr uint8_t zeros[kLogPageBytes] = {};
  const uint64_t end = index + count;
  const uint64_t page = (end - 1) / pagePlaces * pagePlaces;
  const uint64_t pageEnd = sequence + (page + pagePlaces - index);
  if (page < index || end == page + pagePlaces || pageEnd > tail_ + options_.capacityRecords) return 0;
  return options_.system.write(options_.fd.get(), zeros, sizeof zeros, options_.offset + page * kLogPlaceBytes);
}

/** Puts whole places at the head of the ring and moves the head: 0, or EIO when the log has failed. */
int MappingLog::writeLocked(const void* places, uint64_t count, Raised& raised) {
  const auto* bytes = static_cast<const uint8_t*>(places);
  for (uint64_t done = 0; done < count;) {
    const uint64_t index = (head_ + done) % options_.capacityRecords;
    const uint64_t piece = std::min(count - done, options_.capacityRecords - index);
    int failed = enterPage(index, piece, head_ + done);
    if (failed == 0) {
      failed = options_.system.write(options_.fd.get(), bytes + done * kLogPlaceBytes, piece * kLogPlaceBytes,
                                     options_.offset + index * kLogPlaceBytes);
    }
    if (failed != 0) {
      failLocked(std::string("write the mapping log: ") + std::strerror(failed), raised);
      return EIO;
    }
    done += piece;
  }
  head_ += count;
  waiting_.insert(waiting_.end(), bytes, bytes + count * kLogPlaceBytes);
  if (!fillingRaised_ && head_ - fillingFrom_ > options_.capacityRecords / 3) fillingRaised_ = raised.filling = true;
  if (!appendedRaised_ && head_ - taken_ >= kLogTakeMark) appendedRaised_ = raised.appended = true;
  return 0;
}

int MappingLog::publish(LogRecordType type, uint32_t layer, uint64_t subject, uint64_t value) {
  assert(type == LogRecordType::kMap || type == LogRecordType::kHole);
  assert(subject >> typeShift == 0);
  LogRecord record{0, layer, 0, subject | static_cast<uint64_t>(type) << typeShift, value};
  Raised raised;
  std::unique_lock lock(mutex_);
  while (state_ == State::kRunning && head_ - tail_ >= publisherLimit_) {
    if (fullRaised_) {
      room_.wait(lock);
      continue;
    }
    fullRaised_ = raised.full = true;
    lock.unlock();
    raise(raised);
    raised = {};
    lock.lock();
  }
  int failed = EIO;
  if (state_ == State::kRunning) {
    seal(record, head_);
    failed = writeLocked(&record, 1, raised);
  }
  lock.unlock();
  raise(raised);
  return failed;
}

/** Whether the places are records and their texts, complete; seals each from the sequence of the head on. */
bool MappingLog::prepare(std::vector<uint8_t>& records) const {
  const uint64_t count = records.size() / kLogPlaceBytes;
  if (count == 0 || records.size() % kLogPlaceBytes != 0) return false;
  for (uint64_t at = 0; at < count;) {
    uint8_t* const place = records.data() + at * kLogPlaceBytes;
    LogRecord record;
    std::memcpy(&record, place, sizeof record);
    uint64_t texts = 0;
    switch (typeOf(record)) {
      case LogRecordType::kMap:
      case LogRecordType::kHole:
      case LogRecordType::kOwn:
      case LogRecordType::kRelease:
        break;
      case LogRecordType::kOperation: {
        texts = textPlaces(record);
        if (texts > count - at - 1) return false;
        const uint64_t crc = record.subjectAndType & ((uint64_t{1} << typeShift) - 1);
        if (crc32c(place + kLogPlaceBytes, record.layer) != crc) return false;
        break;
      }
      default:
        return false;
    }
    seal(record, head_ + at);
    std::memcpy(place, &record, sizeof record);
    at += 1 + texts;
  }
  return true;
}

Result<uint64_t> MappingLog::append(std::span<const uint8_t> given) {
  std::vector<uint8_t> records(given.begin(), given.end());
  const uint64_t count = records.size() / kLogPlaceBytes;
  Raised raised;
  std::unique_lock lock(mutex_);
  if (state_ != State::kRunning) return endedLocked();
  if (!prepare(records)) return Error{"INVALID_ARGUMENT", EINVAL, "these are not records for the mapping log"};
  const uint64_t used = head_ - tail_;
  if (used > appendLimit_ || count > appendLimit_ - used) {
    return Error{"LOG_FULL", ENOSPC, "the mapping log has no room for " + std::to_string(count) + " places"};
  }
  const uint64_t first = head_;
  const int failed = writeLocked(records.data(), count, raised);
  std::optional<Error> error;
  if (failed != 0) error = endedLocked();
  lock.unlock();
  raise(raised);
  if (error) return *error;
  return first;
}

Result<void> MappingLog::commit(uint64_t covered) {
  Raised raised;
  std::unique_lock lock(mutex_);
  if (state_ != State::kRunning) return endedLocked();
  assert(covered <= head_);
  if (covered <= accounted_) {
    committed_ = std::max(committed_, covered);
    return {};
  }
  if (head_ - tail_ >= options_.capacityRecords) return Error{"LOG_FULL", ENOSPC, "the mapping log has no place left"};
  LogRecord record{0, 0, 0, static_cast<uint64_t>(LogRecordType::kCommit) << typeShift, covered};
  const uint64_t sequence = head_;
  seal(record, sequence);
  if (writeLocked(&record, 1, raised) == 0) {
    const uint64_t end = head_;
    const uint64_t oldest = end - std::min(end, options_.capacityRecords);
    const uint64_t from = std::max(writtenThrough_, oldest);
    lock.unlock();
    const int failed = writeThrough(from, end);
    lock.lock();
    if (failed != 0) {
      failLocked(std::string("write the mapping log through: ") + std::strerror(failed), raised);
    } else {
      committed_ = covered;
      accounted_ = covered == sequence ? end : covered;
      writtenThrough_ = end;
      if (!std::exchange(appendedRaised_, true)) raised.appended = true;
    }
  }
  std::optional<Error> error;
  if (state_ != State::kRunning) error = endedLocked();
  lock.unlock();
  raise(raised);
  if (error) return *error;
  return {};
}

/** Without the lock: what lies there stays until trim(), and is sound whenever the disk gets it. 0 or an errno. */
int MappingLog::writeThrough(uint64_t from, uint64_t end) const {
  while (from < end) {
    const uint64_t index = from % options_.capacityRecords;
    const uint64_t piece = std::min(end - from, options_.capacityRecords - index);
    const uint64_t first = index * kLogPlaceBytes / kLogPageBytes * kLogPageBytes;
    const uint64_t last = (index + piece) * kLogPlaceBytes;
    auto* const ring = static_cast<uint8_t*>(ring_);
    const int failed = options_.system.sync(options_.fd.get(), ring == nullptr ? nullptr : ring + first, last - first);
    if (failed != 0) return failed;
    from += piece;
  }
  return 0;
}

void MappingLog::take(std::vector<uint8_t>& records) {
  records.clear();
  // Not under the lock: memory for what comes next.
  records.reserve(waitingPlaces * kLogPlaceBytes);
  const std::lock_guard lock(mutex_);
  records.swap(waiting_);
  taken_ = head_;
  appendedRaised_ = false;
}

Result<void> MappingLog::trim(uint64_t tail) {
  const std::lock_guard lock(mutex_);
  if (tail > taken_) return Error{"INVALID_ARGUMENT", EINVAL, "the mapping log is trimmed beyond what was taken"};
  tail_ = std::max(tail_, tail);
  fillingFrom_ = head_;
  fillingRaised_ = false;
  fullRaised_ = false;
  room_.notify_all();
  return {};
}

uint64_t MappingLog::committed() const {
  const std::lock_guard lock(mutex_);
  return committed_;
}

uint64_t MappingLog::head() const {
  const std::lock_guard lock(mutex_);
  return head_;
}

void MappingLog::fail(const std::string& message) {
  Raised raised;
  {
    const std::lock_guard lock(mutex_);
    failLocked(message, raised);
  }
  raise(raised);
}

void MappingLog::failLocked(const std::string& message, Raised& raised) {
  if (state_ != State::kRunning) return;
  state_ = State::kFailed;
  reason_ = raised.failed = message;
  room_.notify_all();
}

std::optional<Error> MappingLog::ended() const {
  const std::lock_guard lock(mutex_);
  if (state_ == State::kRunning) return std::nullopt;
  return endedLocked();
}

Error MappingLog::endedLocked() const {
  if (state_ == State::kClosed) return Error{"POOL_CLOSED", EIO, "the pool is closed"};
  return Error{"POOL_FAILED", EIO, reason_};
}

void MappingLog::close() {
  const std::lock_guard lock(mutex_);
  state_ = State::kClosed;
  room_.notify_all();
}

void MappingLog::raise(const Raised& raised) const {
  if (!options_.onEvent) return;
  if (raised.filling) options_.onEvent({LogEvent::Kind::kFilling, ""});
  if (raised.full) options_.onEvent({LogEvent::Kind::kFull, ""});
  if (raised.appended) options_.onEvent({LogEvent::Kind::kAppended, ""});
  if (!raised.failed.empty()) options_.onEvent({LogEvent::Kind::kFailed, raised.failed});
}

}  // namespace tidemark

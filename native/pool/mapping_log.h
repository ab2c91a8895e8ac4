// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "../sys/result.h"
#include "../sys/unique_fd.h"

namespace tidemark {

enum class LogRecordType : uint8_t { kMap = 1, kHole = 2, kCommit = 3, kOwn = 4, kRelease = 5, kOperation = 6 };

/** One place of the ring, as src/pool/FORMAT.md has it. */
struct LogRecord {
  uint32_t crc;
  uint32_t layer;
  uint64_t sequence;
  /** The subject in the low 56 bits, the type above. */
  uint64_t subjectAndType;
  uint64_t value;
};
static_assert(sizeof(LogRecord) == 32);
static_assert(offsetof(LogRecord, layer) == 4 && offsetof(LogRecord, sequence) == 8);
static_assert(offsetof(LogRecord, subjectAndType) == 16 && offsetof(LogRecord, value) == 24);

constexpr uint64_t kLogPlaceBytes = sizeof(LogRecord);
/** The ring begins and ends on a page: what is written past the page cache beside it never meets a page of it. */
constexpr uint64_t kLogPageBytes = 4096;
/** Smallest ring, in places. */
constexpr uint64_t kLogCapacityMinimum = 4096;
/** Places that publishers leave to the rest, at the least. */
constexpr uint64_t kLogReserveMinimum = 1024;
/** Places that append() leaves to COMMITs: no more than two follow the last record of another type. */
constexpr uint64_t kLogCommitReserve = 8;
/** So many places wait in take() before the `appended` event says so without a COMMIT. */
constexpr uint64_t kLogTakeMark = 4096;

struct LogEvent {
  enum class Kind : uint8_t { kAppended, kFilling, kFull, kFailed };
  Kind kind;
  /** For kFailed. */
  std::string message;
};

/** Tests replace these to inject faults. Each returns 0 or an errno. */
struct LogSystemCalls {
  std::function<int(int fd, const void* bytes, size_t length, uint64_t offset)> write;
  /** `from` is the address the ring's first page is mapped to. */
  std::function<int(int fd, void* from, size_t length)> sync;
};

struct MappingLogOptions {
  /** Of device 0, through the page cache. */
  UniqueFd fd;
  /** Multiple of kLogPageBytes, as is the ring's length. */
  uint64_t offset = 0;
  uint64_t capacityRecords = 0;
  uint32_t seed = 0;
  /** Sequence of the next record, and of the oldest that must be kept. */
  uint64_t head = 0;
  uint64_t tail = 0;
  /** Called on the thread that appends, trims or syncs, without locks. Must not block or call back into the log. */
  std::function<void(const LogEvent&)> onEvent;
  LogSystemCalls system;
};

/**
 * The ring of records on device 0 that says where every block of a pool lies. src/pool/DESIGN.md says what it is for.
 *
 * A record is in the page cache, and so is everything before it, when the call that appended it returns: a reader ends
 * at the first place that is not valid. What is durable is said by commit(). A write or sync that failed is never tried
 * again: everything later gets EIO, for good.
 *
 * One lock, `mutex_`, guards all that changes. It is held over the write into the page cache (which keeps the order)
 * and never over a sync or an event. Publishing one record allocates nothing in steady state.
 */
class MappingLog {
 public:
  /** @error INVALID_ARGUMENT: the ring or its ends make no sense */
  static Result<std::unique_ptr<MappingLog>> open(MappingLogOptions options);
  ~MappingLog();
  MappingLog(const MappingLog&) = delete;
  MappingLog& operator=(const MappingLog&) = delete;

  /** One MAP or HOLE record. Waits while the ring is full. 0, or EIO once failed or closed. */
  int publish(LogRecordType type, uint32_t layer, uint64_t subject, uint64_t value);

  /**
   * Records of the caller's making: whole places, OPERATIONs with their text; sequence and checksum of record headers
   * are filled in. All of them or none. The sequence of the first. Never waits, and may use the reserve.
   * @error INVALID_ARGUMENT: not records, or a COMMIT, or a text without its checksum; LOG_FULL, POOL_FAILED,
   *        POOL_CLOSED
   */
  Result<uint64_t> append(std::span<const uint8_t> records);

  /**
   * Everything below `covered` is durable on the devices: says so in a COMMIT and writes the ring through, unless the
   * last COMMIT says it already. One caller at a time.
   * @error POOL_FAILED, POOL_CLOSED, LOG_FULL (only when trim() never comes)
   */
  Result<void> commit(uint64_t covered);

  /** What was appended since the last call, whole records in log order, into `records` (its memory is used again). */
  void take(std::vector<uint8_t>& records);
  /**
   * Records before `tail` are needed no more: whoever waits for room goes on. Never goes back.
   * @error INVALID_ARGUMENT: beyond what was taken
   */
  Result<void> trim(uint64_t tail);
  /** Sequence of the next record. */
  uint64_t head() const;
  /**
   * Records below are durable, with a COMMIT that covers them. take() may hand over a COMMIT before it is durable: what
   * was freed before it must not be given out again until this says so. What commit() was given when it has returned.
   */
  uint64_t committed() const;

  /** For good; only the first reason counts, and raises the event. Whoever waits gets EIO. */
  void fail(const std::string& message);
  /** POOL_FAILED or POOL_CLOSED, or none. */
  std::optional<Error> ended() const;
  /** Whoever waits gets EIO, and everything later. */
  void close();

 private:
  /** Events noted under the lock, raised after it. */
  struct Raised;
  enum class State : uint8_t { kRunning, kFailed, kClosed };

  explicit MappingLog(MappingLogOptions options);
  Error endedLocked() const;
  void failLocked(const std::string& message, Raised& raised);
  void seal(LogRecord& record, uint64_t sequence) const;
  int enterPage(uint64_t index, uint64_t count, uint64_t sequence) const;
  int writeLocked(const void* places, uint64_t count, Raised& raised);
  bool prepare(std::vector<uint8_t>& records) const;
  int writeThrough(uint64_t from, uint64_t end) const;
  void raise(const Raised& raised) const;

  MappingLogOptions options_;
  const uint64_t publisherLimit_;
  const uint64_t appendLimit_;
  /** The checksum of the seed, which that of every record continues. */
  const uint32_t seedCrc_;
  /** The ring, mapped for msync() alone, which syncs a range as no other call does; null where it cannot be mapped. */
  void* ring_ = nullptr;

  mutable std::mutex mutex_;
  std::condition_variable room_;
  State state_ = State::kRunning;
  std::string reason_;
  uint64_t head_;
  uint64_t tail_;
  /** Below this everything was handed over by take(). */
  uint64_t taken_;
  std::vector<uint8_t> waiting_;
  /** `filling` is raised when the head has gone a third of the ring beyond this. */
  uint64_t fillingFrom_;
  bool fillingRaised_ = false;
  bool fullRaised_ = false;
  bool appendedRaised_ = false;
  uint64_t committed_;
  /** Everything below is covered by a COMMIT, or is that COMMIT. */
  uint64_t accounted_;
  /** Everything below was written through. */
  uint64_t writtenThrough_;
};

}  // namespace tidemark

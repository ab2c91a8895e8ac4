// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../sys/result.h"
#include "journal_format.h"
#include "segment_store.h"

/**
 * One journal of one stream: appended to by many front-end threads, made durable by one.
 *
 * A write goes: reserve() -> copy the payload to reservation.payload -> complete() -> write the backing -> applied() ->
 * acknowledge. What complete() has not let go of is on no backing: this process may end at any time, and the next one
 * believes what it finds in the files. Overlapping writes must hold a RangeLock from before reserve() to after applied(),
 * so that the journal and the backing see them in one order.
 *
 * Nothing here throws and nothing on the append path allocates in steady state.
 *
 * Locks, in the order they may be taken:
 *   append_    gives out places: tail, ring tickets, the open segment. Held while an appender waits for a segment or for
 *              ring space (all later appenders would wait for the same thing); so nobody but appenders takes it.
 *   SegmentStore's own lock (see there).
 *   progress_  the prefixes (published, applied), sync waiters, state changes. Held for a few instructions.
 * Callbacks run without any of them.
 */
namespace tidemark {

/** Places given out whose backing writes are not yet applied, at the most; reserve() waits beyond. */
constexpr uint32_t kJournalInFlightLimit = 4096;

struct JournalEvent {
  enum class Kind { kFull, kFailed };
  Kind kind = Kind::kFull;
  /** For kFailed: JOURNAL_NO_SPACE, JOURNAL_SEGMENT_FAILED, JOURNAL_SYNC_FAILED. */
  Error error;
};

struct JournalOptions {
  std::string directory;
  JournalId journalId{};
  /** Multiple of 1 MiB. A record (64 + payload) must fit segmentBytes - 4096: 1 MiB writes need 2 MiB or more. */
  uint64_t segmentBytes = 0;
  uint32_t spareSegments = 1;
  uint64_t limitBytes = 0;
  /** 0 for a new journal, otherwise what recovery returned. */
  uint64_t startLsn = 0;
  uint32_t incarnation = 0;
  /** Called on the journal's threads, without locks. Must not call back into the journal except abandon(). */
  std::function<void(const JournalEvent&)> onEvent;
  /** Segments that were made ready and not taken for so long are given back; shorter in tests. */
  uint32_t idleMilliseconds = 60'000;
  /** Tests replace these to inject faults. */
  SegmentSystemCalls system;
};

/** A place in the journal that one writer holds between reserve() and applied(). Plain data; copy or move freely. */
struct Reservation {
  /** Where `payloadBytes` bytes go, in the mapped segment; valid until complete(). Null when not journaled. */
  uint8_t* payload = nullptr;
  uint32_t payloadBytes = 0;
  uint64_t lsn = 0;

  /** False: the journal was abandoned, the write goes to the backing alone; complete() and applied() do nothing. */
  bool journaled() const { return header != nullptr; }

  RecordHeader* header = nullptr;
  const MappedSegment* segment = nullptr;
  uint64_t ticket = 0;
};

struct JournalCounters {
  uint64_t publishedLsn = 0;
  uint64_t durableLsn = 0;
  uint64_t appliedLsn = 0;
  uint64_t records = 0;
  uint64_t payloadBytes = 0;
  uint64_t segments = 0;
  uint64_t syncs = 0;
};

class Journal {
 public:
  /**
   * Maps the segment of startLsn, puts segments beyond it back among the spares, starts the sync and preparer threads.
   * A segment that is not there is made: at once, or, where it would begin with startLsn, with the first record.
   *
   * Errors: INVALID_ARGUMENT, FOREIGN_SEGMENT, JOURNAL_DAMAGED (the start segment), JOURNAL_NO_SPACE,
   * JOURNAL_SEGMENT_FAILED.
   */
  static Result<std::unique_ptr<Journal>> open(JournalOptions options);

  /** close() if that was not done. */
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  /**
   * Take the next place: its header is valid ("reserved") when this returns. `volume` is kNoVolume for a marker.
   * `payloadBytes` is length for WRITE and MARKER, else 0.
   *
   * Waits while the journal is full, failed or has kJournalInFlightLimit records in flight; after abandon() it returns
   * a reservation that is not journaled, at once.
   *
   * Errors: JOURNAL_RECORD_TOO_LARGE (see payloadLimitBytes()), JOURNAL_CLOSED; JOURNAL_FULL and JOURNAL_FAILED, see
   * refuse().
   */
  Result<Reservation> reserve(RecordType type, uint16_t volume, uint64_t offset, uint64_t length,
                              uint32_t payloadBytes);

  /**
   * The payload is in place: checksums it and publishes the record. Exactly once; the payload is not touched after.
   *
   * A record whose segment is broken fails the journal and waits, as reserve() does.
   * @return false: the journal has failed and refuses, or is closed. The backing must not be written
   */
  [[nodiscard]] bool complete(Reservation& reservation);
  /** The backing write is done, or will never be. Exactly once, after complete(). */
  void applied(Reservation& reservation);

  /** reserve, copy, complete, applied: a MARKER (64 KiB at the most); its LSN, or 0 when the journal was abandoned. */
  Result<uint64_t> appendMarker(const void* payload, uint32_t payloadBytes);

  /** `error` is null when everything below durableLsn is durable; else its code is JOURNAL_ABANDONED, _CLOSED or _FAILED. */
  using SyncCallback = std::function<void(uint64_t durableLsn, const Error* error)>;

  /**
   * Make durable every record whose place was given out before this call (so every acknowledged write; an older slow
   * one is waited for). Calls made while a sync runs share the next one. The callback runs once, on the journal's sync
   * thread, on the caller's when there is nothing to wait for, or on the thread that abandons or closes.
   *
   * After a failed sync callbacks wait for abandon(), or refuse(); nothing is tried again.
   */
  void sync(SyncCallback callback);
  /** sync() and wait for it. */
  Result<uint64_t> syncAndWait();

  /** Segments wholly below may be recycled. Never goes past what is durable and applied. */
  void trim(uint64_t belowLsn);

  /**
   * The journal does not hold what the backing does, and cannot be made to: as after a failed sync, appenders and syncs
   * wait until abandon(). Raises the event, once.
   */
  void giveUp(Error error) { fail(std::move(error)); }

  /**
   * While set nobody waits for this journal: who finds it full gets JOURNAL_FULL, who finds it failed JOURNAL_FAILED,
   * flushes too. A journal that has room takes writes all the same. Unset, the event of a full journal is raised anew
   * for whoever waits already: it may have come while the one before was answered, and hosts would wait for ever.
   */
  void refuse(bool refuse);

  /**
   * While set, a flush is not answered on the word of this journal alone: whoever may decide that it is not replayed
   * says so first.
   */
  void doubt(bool doubted) { doubted_.store(doubted, std::memory_order_seq_cst); }
  bool doubted() const { return doubted_.load(std::memory_order_seq_cst); }

  /**
   * Stop journaling for good: whoever waits, and everybody later, is told `not journaled`. Places already given out
   * may still be completed. Does not block.
   */
  void abandon();
  bool abandoned() const { return state_.load(std::memory_order_acquire) == State::kAbandoned; }

  /**
   * Sync (unless failed or abandoned), end the threads, unmap, close. Later reserve() gives JOURNAL_CLOSED. No other
   * call may be in progress and every reservation is completed, except appenders that wait: they get JOURNAL_CLOSED.
   */
  Result<void> close();

  /** The largest payload reserve() takes. */
  uint32_t payloadLimitBytes() const;
  JournalCounters counters() const;
  uint64_t publishedLsn() const { return published_.load(std::memory_order_acquire); }
  uint64_t durableLsn() const { return durable_.load(std::memory_order_acquire); }
  uint64_t appliedLsn() const { return applied_.load(std::memory_order_acquire); }

 private:
  enum class State : uint8_t { kRunning, kFailed, kAbandoned, kClosed };

  /** One record in flight. `phase` counts up: 0 reserved, 1 completed, 2 applied. Guarded by progress_. */
  struct Slot {
    uint64_t endLsn = 0;
    uint8_t phase = 0;
  };
  struct SyncWaiter {
    uint64_t targetLsn;
    SyncCallback callback;
  };

  explicit Journal(JournalOptions options);

  RecordHeader* writeReserved(RecordType type, uint16_t volume, uint64_t offset, uint64_t length,
                              uint32_t payloadBytes);
  void commit(RecordHeader& header, uint32_t payloadCrc);
  void advance(uint64_t ticket, uint8_t phase);
  bool surviveLoss(const MappedSegment& lost);
  void fail(Error error);
  bool markFailed(const Error& error);
  void raiseFailed(Error error);
  void stop(State state, Error reason);
  void syncLoop();
  uint64_t normalized(uint64_t lsn) const;

  const JournalOptions options_;
  /** The journal id's checksum: every header checksum continues it, so a record of another journal never passes. */
  const uint32_t crcSeed_;
  SegmentStore segments_;

  std::atomic<State> state_{State::kRunning};
  std::atomic<bool> doubted_{false};
  std::atomic<bool> refusing_{false};
  std::atomic<uint64_t> tail_{0};
  std::atomic<uint64_t> published_{0};
  std::atomic<uint64_t> durable_{0};
  std::atomic<uint64_t> applied_{0};
  std::atomic<uint64_t> records_{0};
  std::atomic<uint64_t> payloadBytes_{0};
  std::atomic<uint64_t> syncs_{0};

  std::mutex append_;
  /** Null until the first record, where nothing lies before it in its segment. */
  MappedSegment* open_ = nullptr;
  /** Where the next record goes, unless it does not fit the open segment. */
  uint64_t nextLsn_ = 0;

  mutable std::mutex progress_;
  std::condition_variable progressed_;
  std::condition_variable syncWanted_;
  std::vector<Slot> ring_;
  uint64_t nextTicket_ = 0;
  uint64_t publishedTicket_ = 0;
  uint64_t appliedTicket_ = 0;
  std::vector<SyncWaiter> waiters_;
  /** The sync thread waits for the prefix to reach this; 0 when it does not. */
  uint64_t wantedLsn_ = 0;
  /** An appender waits for ring space or for the end of a failure. */
  bool appenderWaits_ = false;
  bool stopSync_ = false;
  /** What ended appending; meaningful unless kRunning. */
  Error reason_;

  std::thread syncThread_;
};

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#include "journal.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <ctime>
#include <utility>

#include "../sys/crc32c.h"
#include "../sys/process_memory.h"

namespace tidemark {
namespace {

constexpr uint64_t kMiB = 1 << 20;

uint64_t nowNs() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

Error abandonedError() { return Error{"JOURNAL_ABANDONED", 0, "the journal was abandoned"}; }
Error fullError() { return Error{"JOURNAL_FULL", ENOSPC, "the journal is full"}; }
Error failedError() { return Error{"JOURNAL_FAILED", EIO, "the journal has failed"}; }
Error closedError() { return Error{"JOURNAL_CLOSED", 0, "the journal is closed"}; }

}  // namespace

Journal::Journal(JournalOptions options)
    : options_(std::move(options)),
      crcSeed_(crc32c(options_.journalId.data(), options_.journalId.size())),
      segments_({
          .directory = options_.directory,
          .journalId = options_.journalId,
          .segmentBytes = options_.segmentBytes,
          .spareSegments = options_.spareSegments,
          .limitBytes = options_.limitBytes,
          .idle = std::chrono::milliseconds(options_.idleMilliseconds),
          .system = options_.system,
          .onFull =
              [this] {
                if (options_.onEvent) options_.onEvent(JournalEvent{JournalEvent::Kind::kFull, {}});
              },
          .onFailed = [this](Error error) { fail(std::move(error)); },
      }),
      ring_(kJournalInFlightLimit) {}

Result<std::unique_ptr<Journal>> Journal::open(JournalOptions options) {
  const auto invalid = [](const char* message) { return Error{"INVALID_ARGUMENT", EINVAL, message}; };
  if (options.segmentBytes == 0 || options.segmentBytes % kMiB != 0 || options.segmentBytes > uint64_t{1} << 31) {
    return invalid("segmentBytes must be a multiple of 1 MiB, 2 GiB at the most");
  }
  if (options.spareSegments < 1) return invalid("spareSegments must be at least 1");
  if (options.limitBytes / options.segmentBytes < 2) return invalid("limitBytes must hold two segments or more");
  if (options.startLsn % 64 != 0) return invalid("startLsn must be a multiple of 64");
  const uint64_t within = options.startLsn % options.segmentBytes;
  if (within != 0 && within < kSegmentHeaderBytes) return invalid("startLsn lies in a segment header");

  std::unique_ptr<Journal> journal(new Journal(std::move(options)));
  const uint64_t start = journal->normalized(journal->options_.startLsn);
  auto opened = journal->segments_.open(start);
  if (!opened) return opened.error();
  MappedSegment* segment = opened.value();

  // Nothing at or beyond the start may be taken for a record of this journal: clear the first place, durably. What lies
  // behind it has a lower incarnation than whatever is written here. A recovery has cleared it already.
  static constexpr uint8_t blank[kRecordHeaderBytes] = {};
  uint8_t* place = segment == nullptr ? nullptr : segment->memory() + (start - segment->baseLsn);
  if (place != nullptr && (std::memcmp(place, blank, sizeof blank) != 0 || segment->isBroken())) {
    std::memset(place, 0, sizeof blank);
    if (auto synced = journal->segments_.sync(start, start + sizeof blank); !synced) return synced.error();
  }

  journal->open_ = segment;
  journal->nextLsn_ = start;
  journal->tail_ = journal->published_ = journal->durable_ = journal->applied_ = start;
  journal->syncThread_ = std::thread([raw = journal.get()] {
    protectThread();
    raw->syncLoop();
  });
  return journal;
}

Journal::~Journal() {
  if (syncThread_.joinable()) (void)close();
  // Also when open() failed: the preparer must not call fail() on what is already destroyed.
  segments_.close();
}

/** The address of the record that begins at or after this: nothing begins in a segment's header. */
uint64_t Journal::normalized(uint64_t lsn) const {
  return lsn % options_.segmentBytes == 0 ? lsn + kSegmentHeaderBytes : lsn;
}

uint32_t Journal::payloadLimitBytes() const {
  return static_cast<uint32_t>(options_.segmentBytes - kSegmentHeaderBytes - kRecordHeaderBytes);
}

Result<Reservation> Journal::reserve(RecordType type, uint16_t volume, uint64_t offset, uint64_t length,
                                     uint32_t payloadBytes) {
  if (payloadBytes > payloadLimitBytes()) {
    return Error{"JOURNAL_RECORD_TOO_LARGE", EMSGSIZE, "a record does not fit a journal segment"};
  }
  const uint64_t space = recordSpace(payloadBytes);
  std::unique_lock append(append_);
  // No place is given out behind one that the file misses: a recovery would end before it, and the backing would hold more.
  const auto failFor = [&](const MappedSegment& lost) {
    const Error error = segments_.brokenError(lost);
    const bool isNews = markFailed(error);
    append.unlock();
    if (isNews) raiseFailed(error);
    append.lock();
  };
  for (;;) {
    // Before open_ is looked at: after close() it is gone.
    const State state = state_.load(std::memory_order_acquire);
    if (state == State::kAbandoned) return Reservation{};
    if (state == State::kClosed) return closedError();
    if (state == State::kFailed && refusing_.load()) return failedError();
    if (state == State::kRunning && open_ != nullptr && open_->isBroken()) {
      failFor(*open_);
      continue;
    }
    if (open_ != nullptr && nextLsn_ + space <= open_->baseLsn + options_.segmentBytes) break;
    MappedSegment* next = segments_.next();
    if (next == nullptr) {
      if (refusing_.load() && state_.load(std::memory_order_acquire) == State::kRunning) return fullError();
      continue;
    }
    // The next segment is there before the rest of this one is given away.
    const uint64_t rest = open_ == nullptr ? 0 : open_->baseLsn + options_.segmentBytes - nextLsn_;
    if (rest > 0) {
      const uint32_t skipped = static_cast<uint32_t>(rest) - kRecordHeaderBytes;
      commit(*writeReserved(RecordType::kPad, kNoVolume, 0, 0, skipped), 0);
    }
    const MappedSegment* const left = std::exchange(open_, next);
    nextLsn_ = next->baseLsn + kSegmentHeaderBytes;
    if (left != nullptr && left->isBroken()) failFor(*left);
  }

  const uint64_t end = nextLsn_ + space;
  if (end - open_->baseLsn > options_.segmentBytes / 2) segments_.wantAhead();
  Reservation reservation;
  {
    std::unique_lock progress(progress_);
    const auto mayGo = [this] {
      const State state = state_.load(std::memory_order_relaxed);
      if (state == State::kRunning) return nextTicket_ - appliedTicket_ < kJournalInFlightLimit;
      return state != State::kFailed || refusing_.load();
    };
    if (!mayGo()) {
      appenderWaits_ = true;
      progressed_.wait(progress, mayGo);
      appenderWaits_ = false;
    }
    const State state = state_.load(std::memory_order_relaxed);
    if (state == State::kAbandoned) return Reservation{};
    if (state == State::kClosed) return closedError();
    if (state == State::kFailed) return failedError();
    reservation.ticket = nextTicket_++;
    ring_[reservation.ticket % kJournalInFlightLimit] = Slot{normalized(end), 0};
  }
  reservation.lsn = nextLsn_;
  reservation.payloadBytes = payloadBytes;
  reservation.segment = open_;
  reservation.header = writeReserved(type, volume, offset, length, payloadBytes);
  reservation.payload = reinterpret_cast<uint8_t*>(reservation.header + 1);
  nextLsn_ = end;
  tail_.store(normalized(end), std::memory_order_release);
  return reservation;
}

/**
 * The header of the place at nextLsn_, up to headerCrc. The commit is cleared first: a crash between any two of these
 * stores leaves no header or a reserved one, never one that says complete.
 */
RecordHeader* Journal::writeReserved(RecordType type, uint16_t volume, uint64_t offset, uint64_t length,
                                     uint32_t payloadBytes) {
  auto* header = reinterpret_cast<RecordHeader*>(open_->memory() + (nextLsn_ - open_->baseLsn));
  std::atomic_ref<uint32_t>(header->commit).store(0, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  header->magic = kRecordMagic;
  header->type = static_cast<uint8_t>(type);
  header->flags = 0;
  header->volume = volume;
  header->lsn = nextLsn_;
  header->offset = offset;
  header->length = length;
  header->time = nowNs();
  header->payloadBytes = payloadBytes;
  header->incarnation = options_.incarnation;
  header->payloadCrc = 0;
  header->zero = 0;
  const uint32_t crc = crc32c(header, offsetof(RecordHeader, headerCrc), crcSeed_);
  std::atomic_ref<uint32_t>(header->headerCrc).store(crc, std::memory_order_release);
  return header;
}

void Journal::commit(RecordHeader& header, uint32_t payloadCrc) {
  header.payloadCrc = payloadCrc;
  const uint32_t crc = crc32c(&header, offsetof(RecordHeader, commit), crcSeed_);
  std::atomic_ref<uint32_t>(header.commit).store(crc, std::memory_order_release);
}

bool Journal::complete(Reservation& reservation) {
  if (!reservation.journaled()) return true;
  RecordHeader& header = *reservation.header;
  const uint32_t bytes = reservation.payloadBytes;
  if (header.type == static_cast<uint8_t>(RecordType::kWrite)) {
    payloadBytes_.fetch_add(bytes, std::memory_order_relaxed);
  }
  records_.fetch_add(1, std::memory_order_relaxed);
  const uint32_t payloadCrc = bytes == 0 ? 0 : crc32c(reservation.payload, bytes);
  const MappedSegment& segment = *reservation.segment;
  // Otherwise it stays reserved: a payload that went nowhere is not said to be there.
  if (!segment.isBroken()) commit(header, payloadCrc);
  const bool goesOn = !segment.isBroken() || surviveLoss(segment);
  advance(reservation.ticket, 1);
  return goesOn;
}

/** True: it was abandoned, so it is known that the journal misses what is written from here on. */
bool Journal::surviveLoss(const MappedSegment& lost) {
  fail(segments_.brokenError(lost));
  std::unique_lock lock(progress_);
  progressed_.wait(lock, [this] { return state_.load() != State::kFailed || refusing_.load(); });
  return state_.load() == State::kAbandoned;
}

void Journal::applied(Reservation& reservation) {
  if (reservation.journaled()) advance(reservation.ticket, 2);
}

void Journal::advance(uint64_t ticket, uint8_t phase) {
  bool wakeAppender = false;
  bool wakeSync = false;
  {
    std::lock_guard lock(progress_);
    Slot& slot = ring_[ticket % kJournalInFlightLimit];
    assert(ticket >= appliedTicket_ && ticket < nextTicket_ && slot.phase == phase - 1);
    slot.phase = phase;
    const auto reached = [this](uint64_t candidate, uint8_t wanted) {
      return candidate < nextTicket_ && ring_[candidate % kJournalInFlightLimit].phase >= wanted;
    };
    while (reached(publishedTicket_, 1)) {
      published_.store(ring_[publishedTicket_++ % kJournalInFlightLimit].endLsn, std::memory_order_release);
    }
    while (appliedTicket_ < publishedTicket_ && reached(appliedTicket_, 2)) {
      applied_.store(ring_[appliedTicket_++ % kJournalInFlightLimit].endLsn, std::memory_order_release);
      wakeAppender = appenderWaits_;
    }
    wakeSync = wantedLsn_ != 0 && published_.load(std::memory_order_relaxed) >= wantedLsn_;
  }
  if (wakeAppender) progressed_.notify_all();
  if (wakeSync) syncWanted_.notify_one();
}

Result<uint64_t> Journal::appendMarker(const void* payload, uint32_t payloadBytes) {
  if (payloadBytes > kMarkerPayloadLimitBytes) {
    return Error{"JOURNAL_RECORD_TOO_LARGE", EMSGSIZE, "a marker holds 64 KiB at the most"};
  }
  auto reserved = reserve(RecordType::kMarker, kNoVolume, 0, payloadBytes, payloadBytes);
  if (!reserved) return reserved.error();
  Reservation reservation = reserved.value();
  if (!reservation.journaled()) return uint64_t{0};
  if (payloadBytes > 0) std::memcpy(reservation.payload, payload, payloadBytes);
  const bool goesOn = complete(reservation);
  applied(reservation);
  if (!goesOn) return failedError();
  return reservation.lsn;
}

void Journal::sync(SyncCallback callback) {
  Error error;
  bool refused = false;
  {
    std::lock_guard lock(progress_);
    const State state = state_.load(std::memory_order_relaxed);
    // Every place given out before this call, so every acknowledged write, lies below the tail.
    const uint64_t target = tail_.load(std::memory_order_acquire);
    if (state == State::kAbandoned || state == State::kClosed) {
      error = reason_;
      refused = true;
    } else if (state == State::kFailed && refusing_.load()) {
      error = failedError();
      refused = true;
    } else if (durable_.load(std::memory_order_relaxed) < target) {
      waiters_.push_back(SyncWaiter{target, std::move(callback)});
      syncWanted_.notify_one();
      return;
    }
  }
  callback(durableLsn(), refused ? &error : nullptr);
}

Result<uint64_t> Journal::syncAndWait() {
  struct Outcome {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    uint64_t lsn = 0;
    bool failed = false;
    Error error;
  } outcome;
  sync([&outcome](uint64_t lsn, const Error* error) {
    std::lock_guard lock(outcome.mutex);
    outcome.done = true;
    outcome.lsn = lsn;
    outcome.failed = error != nullptr;
    if (error != nullptr) outcome.error = *error;
    outcome.changed.notify_all();
  });
  std::unique_lock lock(outcome.mutex);
  outcome.changed.wait(lock, [&] { return outcome.done; });
  if (outcome.failed) return outcome.error;
  return outcome.lsn;
}

void Journal::syncLoop() {
  std::vector<SyncWaiter> done;
  std::unique_lock lock(progress_);
  const auto running = [this] { return state_.load(std::memory_order_relaxed) == State::kRunning; };
  while (!stopSync_) {
    if (waiters_.empty() || !running()) {
      syncWanted_.wait(lock);
      continue;
    }
    // Later calls have higher targets. Whoever comes while this one runs takes part in the next.
    const uint64_t target = waiters_.back().targetLsn;
    wantedLsn_ = target;
    syncWanted_.wait(lock, [&] { return published_.load(std::memory_order_relaxed) >= target || stopSync_ || !running(); });
    wantedLsn_ = 0;
    if (stopSync_ || !running()) continue;

    const uint64_t from = durable_.load(std::memory_order_relaxed);
    const uint64_t cut = published_.load(std::memory_order_acquire);
    lock.unlock();
    auto synced = segments_.sync(from, cut);
    if (!synced) fail(std::move(synced.error()));
    lock.lock();
    if (!synced || !running()) continue;

    durable_.store(cut, std::memory_order_release);
    syncs_.fetch_add(1, std::memory_order_relaxed);
    const auto later = std::find_if(waiters_.begin(), waiters_.end(), [cut](auto& w) { return w.targetLsn > cut; });
    done.assign(std::make_move_iterator(waiters_.begin()), std::make_move_iterator(later));
    waiters_.erase(waiters_.begin(), later);
    lock.unlock();
    for (SyncWaiter& waiter : done) waiter.callback(cut, nullptr);
    done.clear();
    segments_.retire(cut);
    lock.lock();
  }
}

/** Nothing is tried again: appenders and syncs wait until abandon() or close(). */
void Journal::fail(Error error) {
  if (markFailed(error)) raiseFailed(std::move(error));
}

/** False: it had ended before. */
bool Journal::markFailed(const Error& error) {
  {
    std::lock_guard lock(progress_);
    if (state_.load(std::memory_order_relaxed) != State::kRunning) return false;
    reason_ = error;
    state_.store(State::kFailed, std::memory_order_release);
  }
  progressed_.notify_all();
  syncWanted_.notify_all();
  return true;
}

void Journal::raiseFailed(Error error) {
  if (options_.onEvent) options_.onEvent(JournalEvent{JournalEvent::Kind::kFailed, std::move(error)});
}

void Journal::trim(uint64_t belowLsn) { segments_.trim(std::min({belowLsn, durableLsn(), appliedLsn()})); }

void Journal::refuse(bool refuse) {
  std::vector<SyncWaiter> waiters;
  {
    std::lock_guard lock(progress_);
    refusing_.store(refuse);
    if (refuse && state_.load() == State::kFailed) waiters.swap(waiters_);
  }
  progressed_.notify_all();
  segments_.refuseWaiting(refuse);
  const Error error = failedError();
  for (SyncWaiter& waiter : waiters) waiter.callback(durableLsn(), &error);
}

void Journal::abandon() { stop(State::kAbandoned, abandonedError()); }

void Journal::stop(State state, Error reason) {
  std::vector<SyncWaiter> waiters;
  uint64_t durable = 0;
  {
    std::lock_guard lock(progress_);
    if (state_.load(std::memory_order_relaxed) == State::kClosed) return;
    reason_ = reason;
    state_.store(state, std::memory_order_release);
    waiters.swap(waiters_);
    durable = durable_.load(std::memory_order_relaxed);
  }
  progressed_.notify_all();
  syncWanted_.notify_all();
  segments_.stopWaiting();
  for (SyncWaiter& waiter : waiters) waiter.callback(durable, &reason);
}

Result<void> Journal::close() {
  if (!syncThread_.joinable()) return {};
  {
    // Woken by the callback, or by a failure: then nothing calls back before stop().
    auto synced = std::make_shared<bool>(false);
    sync([this, synced](uint64_t, const Error*) {
      std::lock_guard lock(progress_);
      *synced = true;
      progressed_.notify_all();
    });
    std::unique_lock lock(progress_);
    progressed_.wait(lock, [&] { return *synced || state_.load() != State::kRunning; });
  }
  Result<void> outcome;
  {
    std::lock_guard lock(progress_);
    if (state_.load() == State::kFailed) outcome = Result<void>(reason_);
    stopSync_ = true;
  }
  stop(State::kClosed, closedError());
  syncWanted_.notify_all();
  syncThread_.join();
  segments_.close();
  return outcome;
}

JournalCounters Journal::counters() const {
  JournalCounters counters;
  // In this order, so that applied and durable are never ahead of published in what is reported.
  counters.appliedLsn = appliedLsn();
  counters.durableLsn = durableLsn();
  counters.publishedLsn = publishedLsn();
  counters.records = records_.load(std::memory_order_relaxed);
  counters.payloadBytes = payloadBytes_.load(std::memory_order_relaxed);
  counters.segments = segments_.segmentCount();
  counters.syncs = syncs_.load(std::memory_order_relaxed);
  return counters;
}

}  // namespace tidemark

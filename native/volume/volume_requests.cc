// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cassert>
#include <cstdlib>

#include "mapped_io.h"
#include "volume.h"

/**
 * The path of one request through a volume. What waits for an answer from TypeScript is parked: copied once, its thread
 * goes on, and the grant worker starts it again from the beginning.
 */
namespace tidemark {
namespace {

constexpr int kFaulted = -1;
constexpr size_t pageBytes = 4096;
constexpr auto relaxed = std::memory_order_relaxed;

}  // namespace

/** A request that outlives its front-end thread's buffer. */
struct Volume::ParkedIo {
  ParkedRequest request;
  Reply reply;
  std::shared_ptr<FuseSession> session;
  Kind kind = Kind::kRead;
  uint64_t offset = 0;
  uint64_t length = 0;
  std::unique_ptr<uint8_t, void (*)(void*)> allocation{nullptr, std::free};

  /** Page-aligned, with a page before it for the header of an answer. */
  uint8_t* memory() const { return allocation ? allocation.get() + pageBytes : nullptr; }
};

/** A flush on its way: answered when both the journal and, where asked for, the backing have it. */
struct Volume::PendingFlush {
  Reply reply;
  std::shared_ptr<FuseSession> session;
  std::atomic<int> waitingFor{1};
  std::atomic<int> errnoValue{0};
};

void Volume::read(const Reply& reply, uint64_t offset, uint32_t length, uint8_t* buffer) {
  counts_.arrived.fetch_add(1, relaxed);
  counts_.reads.fetch_add(1, relaxed);
  counts_.readBytes.fetch_add(length, relaxed);
  run(Io{reply, Kind::kRead, offset, length, buffer, nullptr});
}

void Volume::write(const Reply& reply, uint64_t offset, const uint8_t* payload, uint32_t length) {
  counts_.arrived.fetch_add(1, relaxed);
  counts_.writes.fetch_add(1, relaxed);
  counts_.writtenBytes.fetch_add(length, relaxed);
  run(Io{reply, Kind::kWrite, offset, length, const_cast<uint8_t*>(payload), nullptr});
}

void Volume::discard(const Reply& reply, uint64_t offset, uint64_t length, bool keepAllocated) {
  counts_.arrived.fetch_add(1, relaxed);
  counts_.trims.fetch_add(1, relaxed);
  run(Io{reply, keepAllocated ? Kind::kZero : Kind::kTrim, offset, length, nullptr, nullptr});
}

void Volume::run(Io io) {
  std::vector<Fault> faults;
  for (;;) {
    {
      const GatePass pass(gate_);
      const int result = attempt(io, faults);
      if (result != kFaulted) {
        answer(io, result);
        return;
      }
    }
    if (park(io, faults)) return;
    if (io.parked == nullptr || io.parked->request.errnoValue != 0) {
      answer(io, io.parked ? io.parked->request.errnoValue : ENOMEM);
      return;
    }
  }
}

int Volume::attempt(const Io& io, std::vector<Fault>& faults) {
  if (io.kind != Kind::kRead && options_.readOnly) return EROFS;
  if (table_->isLinear()) {
    if (io.kind == Kind::kRead) return backing_->read(io.offset, io.memory, io.length);
    // Without a journal there is no order to keep: hosts that overlap their own writes get either.
    if (!journal_) return attemptChange(io);
    const RangeGuard guard(locks_, io.offset, io.length);
    return attemptChange(io);
  }
  const RangeGuard guard(locks_, io.offset, io.length);
  const Access access = io.kind == Kind::kRead    ? Access::kRead
                        : io.kind == Kind::kWrite ? Access::kWrite
                                                  : Access::kDiscard;
  collectFaults(*table_, access, io.offset, io.length, faults);
  if (!faults.empty()) return kFaulted;
  return io.kind == Kind::kRead ? readMapped(*table_, *backing_, io.offset, io.memory, io.length) : attemptChange(io);
}

int Volume::attemptChange(const Io& io) {
  Reservation place;
  if (journal_) {
    const RecordType type = io.kind == Kind::kWrite  ? RecordType::kWrite
                            : io.kind == Kind::kZero ? RecordType::kZero
                                                     : RecordType::kTrim;
    const uint32_t payloadBytes = io.kind == Kind::kWrite ? static_cast<uint32_t>(io.length) : 0;
    Result<Reservation> reserved = journal_->reserve(type, journalIndex_, io.offset, io.length, payloadBytes);
    if (!reserved) return EIO;
    place = *reserved;
    if (place.journaled()) {
      if (payloadBytes != 0) std::memcpy(place.payload, io.memory, payloadBytes);
      journal_->complete(place);
    }
  }
  const int result = io.kind == Kind::kWrite
                         ? writeMapped(*table_, *backing_, io.offset, io.memory, io.length)
                         : discardMapped(*table_, *backing_, io.offset, io.length, io.kind == Kind::kZero);
  if (result != 0 && place.journaled()) recordAsItIs(io.offset, io.length);
  if (place.journaled()) journal_->applied(place);
  return result;
}

/**
 * A change is in the journal and failed on the backing, perhaps half-way: the host is told, and the journal too. What the
 * backing holds now is journaled over the record, so that a replay and the far side end with the same bytes. The caller
 * still holds the range.
 */
void Volume::recordAsItIs(uint64_t offset, uint64_t length) {
  constexpr uint64_t pieceBytes = 1 << 20;
  const uint64_t end = offset + length;
  const std::unique_ptr<uint8_t, void (*)(void*)> bytes(
      static_cast<uint8_t*>(std::aligned_alloc(pageBytes, pieceBytes)), std::free);
  int error = bytes ? 0 : ENOMEM;
  for (uint64_t at = offset; at < end && error == 0; at += pieceBytes) {
    const auto piece = static_cast<uint32_t>(std::min(pieceBytes, end - at));
    error = readMapped(*table_, *backing_, at, bytes.get(), piece);
    if (error != 0) break;
    Result<Reservation> reserved = journal_->reserve(RecordType::kWrite, journalIndex_, at, piece, piece);
    if (!reserved) {
      error = EIO;
      break;
    }
    Reservation place = *reserved;
    if (!place.journaled()) return;
    std::memcpy(place.payload, bytes.get(), piece);
    journal_->complete(place);
    journal_->applied(place);
  }
  if (error != 0) {
    journal_->giveUp(Error{"BACKING_FAILED", error, "the backing failed a write, and cannot be read back to tell what it holds"});
  }
}

/** True: it belongs to the fault queue now. False: look again, or it cannot be parked. */
bool Volume::park(Io& io, const std::vector<Fault>& faults) {
  if (!io.parked) {
    auto parked = std::make_unique<ParkedIo>();
    parked->reply = io.reply;
    parked->session = io.reply.keep();
    parked->kind = io.kind;
    parked->offset = io.offset;
    parked->length = io.length;
    if (io.memory != nullptr) {
      const size_t bytes = pageBytes + (io.length + pageBytes - 1) / pageBytes * pageBytes;
      parked->allocation.reset(static_cast<uint8_t*>(std::aligned_alloc(pageBytes, bytes)));
      if (!parked->allocation) return false;
      if (io.kind == Kind::kWrite) std::memcpy(parked->memory(), io.memory, io.length);
      io.memory = parked->memory();
    }
    parked->request.owner = parked.get();
    io.parked = std::move(parked);
  }
  // Once parked it may run, end and be freed on another thread before park() returns.
  ParkedIo* parked = io.parked.release();
  if (faults_->park(parked->request, faults)) return true;
  io.parked.reset(parked);
  return false;
}

void Volume::resume(ParkedRequest& request) {
  std::unique_ptr<ParkedIo> parked(static_cast<ParkedIo*>(request.owner));
  Io io{parked->reply, parked->kind, parked->offset, parked->length, parked->memory(), nullptr};
  const int refused = request.errnoValue;
  io.parked = std::move(parked);
  if (refused != 0) {
    answer(io, refused);
  } else {
    run(std::move(io));
  }
}

void Volume::answer(const Io& io, int errnoValue) {
  // Counted first: whoever has seen the answer also sees the counter.
  answers_.answered.fetch_add(1, relaxed);
  if (errnoValue != 0) {
    answers_.errors.fetch_add(1, relaxed);
    io.reply.finish(errnoValue);
  } else if (io.kind == Kind::kRead) {
    io.reply.data(io.memory, static_cast<uint32_t>(io.length));
  } else if (io.kind == Kind::kWrite) {
    io.reply.written(static_cast<uint32_t>(io.length));
  } else {
    io.reply.finish(0);
  }
}

void Volume::flush(const Reply& reply) {
  counts_.arrived.fetch_add(1, relaxed);
  counts_.flushes.fetch_add(1, relaxed);
  // Left by finishFlush(), so that a journal is never taken away under a flush.
  gate_.enter();
  if (options_.readOnly) {
    finishFlush(reply, 0);
    return;
  }
  auto pending = std::make_shared<PendingFlush>();
  pending->reply = reply;
  pending->session = reply.keep();
  const auto partDone = [this, pending](int errnoValue) {
    if (errnoValue != 0) pending->errnoValue = errnoValue;
    if (pending->waitingFor.fetch_sub(1) == 1) finishFlush(pending->reply, pending->errnoValue);
  };
  if (!journal_ || journal_->abandoned()) {
    sync_->request(partDone);
    return;
  }
  if (options_.syncBacking) {
    pending->waitingFor = 2;
    sync_->request(partDone);
  }
  journal_->sync([this, partDone](uint64_t, const Error* error) {
    // Given up while this waited: what the journal no longer promises, the backing must.
    if (error != nullptr) {
      sync_->request(partDone);
    } else {
      partDone(0);
    }
  });
}

void Volume::finishFlush(const Reply& reply, int errnoValue) {
  answers_.answered.fetch_add(1, relaxed);
  if (errnoValue != 0) answers_.errors.fetch_add(1, relaxed);
  // Any failure is EIO: hosts know what to do with that one.
  reply.finish(errnoValue == 0 ? 0 : EIO);
  gate_.leave();
}

int64_t Volume::seek(uint64_t offset, int whence) {
  const GatePass pass(gate_);
  return seekMapped(*table_, *backing_, offset, whence);
}

void Volume::lost(const std::string& message) {
  if (options_.onLost) options_.onLost(message);
}

}  // namespace tidemark

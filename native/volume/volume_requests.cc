// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <future>

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
  Waiting waiting;
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
  run(Io{reply, Kind::kRead, offset, length, buffer, nullptr, nullptr});
}

void Volume::write(const Reply& reply, uint64_t offset, uint8_t* payload, uint32_t length) {
  counts_.arrived.fetch_add(1, relaxed);
  counts_.writes.fetch_add(1, relaxed);
  counts_.writtenBytes.fetch_add(length, relaxed);
  run(Io{reply, Kind::kWrite, offset, length, payload, nullptr, nullptr});
}

void Volume::writeMany(const Reply& reply, std::span<const BatchedWrite> writes) {
  struct Batch {
    Reply reply;
    std::shared_ptr<FuseSession> session;
    std::atomic<size_t> left;
    std::atomic<int> errnoValue{0};
  };
  const auto batch = std::make_shared<Batch>(reply, reply.keep(), writes.size());
  const auto ended = std::make_shared<const std::function<void(int)>>([batch](int errnoValue) {
    if (errnoValue != 0) batch->errnoValue = errnoValue;
    if (batch->left.fetch_sub(1) == 1) batch->reply.finish(batch->errnoValue);
  });
  for (const BatchedWrite& write : writes) {
    counts_.arrived.fetch_add(1, relaxed);
    counts_.writes.fetch_add(1, relaxed);
    counts_.writtenBytes.fetch_add(write.length, relaxed);
    run(Io{reply, Kind::kWrite, write.offset, write.length, write.payload, ended, nullptr});
  }
}

void Volume::discard(const Reply& reply, uint64_t offset, uint64_t length, bool keepAllocated) {
  counts_.arrived.fetch_add(1, relaxed);
  counts_.trims.fetch_add(1, relaxed);
  run(Io{reply, keepAllocated ? Kind::kZero : Kind::kTrim, offset, length, nullptr, nullptr, nullptr});
}

void Volume::seek(const Reply& reply, uint64_t offset, int whence) {
  counts_.arrived.fetch_add(1, relaxed);
  const Kind kind = whence == SEEK_DATA ? Kind::kSeekData : Kind::kSeekHole;
  if (whence == SEEK_DATA || whence == SEEK_HOLE) {
    run(Io{reply, kind, offset, 0, nullptr, nullptr, nullptr});
  } else {
    answer(Io{reply, kind, offset, 0, nullptr, nullptr, nullptr}, EINVAL);
  }
}

Result<void> Volume::discardBeyond(uint64_t sizeBytes) {
  counts_.arrived.fetch_add(1, relaxed);
  const auto result = std::make_shared<std::promise<int>>();
  std::future<int> done = result->get_future();
  const auto waiting = std::make_shared<const std::function<void(int)>>([result](int failed) { result->set_value(failed); });
  run(Io{Reply{}, Kind::kTrim, sizeBytes, this->sizeBytes() - sizeBytes, nullptr, waiting, nullptr});
  const int failed = done.get();
  if (failed != 0) return Error::fromErrno("IO_FAILED", "discard the end of " + options_.name, failed);
  return {};
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

int Volume::attempt(Io& io, std::vector<Fault>& faults) {
  if (io.kind == Kind::kSeekData || io.kind == Kind::kSeekHole) return attemptSeek(io, faults);
  if (io.kind != Kind::kRead && options_.readOnly) return EROFS;
  ThinPlan plan;
  if (table_->isLinear()) {
    if (io.kind == Kind::kRead) return backing_->read(io.offset, io.memory, io.length);
    // Without a journal there is no order to keep: hosts that overlap their own writes get either.
    if (!journal_) return attemptChange(io, plan);
    const RangeGuard guard(locks_, io.offset, io.length);
    return attemptChange(io, plan);
  }
  const RangeGuard guard(locks_, io.offset, io.length);
  if (io.kind == Kind::kWrite && io.reply.askedBytes != 0) {
    const int failed = fillEdges(io, faults);
    if (failed != 0) return failed;
  }
  if (thin_ && io.kind == Kind::kWrite) {
    planWrite(*table_, *thin_, io.offset, io.memory, io.length, plan, faults);
  } else if (thin_ && io.kind != Kind::kRead) {
    // The kernel writes zeros where zeros must be, and does without a trim.
    if (io.waiting == nullptr && !thin_->makesHoles.load(relaxed)) return EOPNOTSUPP;
    planDiscard(*table_, io.offset, io.length, plan, faults);
  } else {
    const Access access = io.kind == Kind::kRead    ? Access::kRead
                          : io.kind == Kind::kWrite ? Access::kWrite
                                                    : Access::kDiscard;
    collectFaults(*table_, access, io.offset, io.length, faults);
  }
  if (!faults.empty()) return kFaulted;
  if (io.kind == Kind::kRead) return readMapped(*table_, *backing_, io.offset, io.memory, io.length);
  return attemptChange(io, plan);
}

/** A write of parts of logical blocks: the rest of them stays as it is. With the range locked. */
int Volume::fillEdges(const Io& io, std::vector<Fault>& faults) {
  collectFaults(*table_, Access::kRead, io.offset, io.length, faults);
  if (!faults.empty()) return kFaulted;
  alignas(pageBytes) uint8_t block[kLogicalBlockLimit];
  const uint64_t before = io.reply.askedFrom;
  const uint64_t behind = io.length - before - io.reply.askedBytes;
  int failed = 0;
  if (before != 0) {
    failed = readMapped(*table_, *backing_, io.offset, block, logicalBlockBytes_);
    if (failed == 0) std::memcpy(io.memory, block, before);
  }
  if (failed == 0 && behind != 0) {
    failed = readMapped(*table_, *backing_, io.offset + io.length - logicalBlockBytes_, block, logicalBlockBytes_);
    if (failed == 0) std::memcpy(io.memory + io.length - behind, block + logicalBlockBytes_ - behind, behind);
  }
  return failed;
}

int Volume::attemptSeek(Io& io, std::vector<Fault>& faults) {
  const int whence = io.kind == Kind::kSeekData ? SEEK_DATA : SEEK_HOLE;
  const int64_t found = seekMapped(*table_, *backing_, io.offset, whence, faults);
  if (!faults.empty()) return kFaulted;
  if (found < 0) return static_cast<int>(-found);
  io.length = static_cast<uint64_t>(found);
  return 0;
}

/**
 * Its regions are recorded before a place in the journal is given out, so that nobody waits behind a place whose owner
 * waits for the disk, and once more after it: a rotation between the two would count on seeing the place.
 */
int Volume::attemptChange(const Io& io, const ThinPlan& plan) {
  Reservation place;
  if (regions_) regions_->touch(journalIndex_, io.offset, io.length);
  if (journal_) {
    const RecordType type = io.kind == Kind::kWrite  ? RecordType::kWrite
                            : io.kind == Kind::kZero ? RecordType::kZero
                                                     : RecordType::kTrim;
    const uint32_t payloadBytes = io.kind == Kind::kWrite ? static_cast<uint32_t>(io.length) : 0;
    Result<Reservation> reserved = journal_->reserve(type, journalIndex_, io.offset, io.length, payloadBytes);
    if (!reserved) return reserved.error().errnoValue == ENOSPC ? ENOSPC : EIO;
    place = *reserved;
    if (regions_) regions_->touch(journalIndex_, io.offset, io.length);
    if (place.journaled()) {
      if (payloadBytes != 0) std::memcpy(place.payload, io.memory, payloadBytes);
      if (!journal_->complete(place)) {
        journal_->applied(place);
        return EIO;
      }
    }
  }
  const int result = change(io, plan);
  if (result != 0 && place.journaled()) recordAsItIs(io.offset, io.length);
  if (place.journaled()) journal_->applied(place);
  return result;
}

int Volume::change(const Io& io, const ThinPlan& plan) {
  if (thin_) return carryOut(*table_, *thin_, *faults_, plan, io.memory);
  if (io.kind == Kind::kWrite) return writeMapped(*table_, *backing_, io.offset, io.memory, io.length);
  return discardMapped(*table_, *backing_, io.offset, io.length, io.kind == Kind::kZero);
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
  for (uint64_t at = offset, piece = 0; at < end && error == 0; at += piece) {
    const ExtentRun run = table_->runAt(at, end - at);
    // What is not mapped needs no bytes to tell, however long it is.
    const bool isZero = run.known && !run.mapped;
    piece = isZero ? run.length : std::min(pieceBytes, run.length);
    // A trim of what was never looked at may have failed: nobody here knows what is there.
    error = run.known ? 0 : EIO;
    if (error == 0 && !isZero) error = backing_->read(run.backingOffset, bytes.get(), piece);
    if (error != 0) break;
    const uint32_t payloadBytes = isZero ? 0 : static_cast<uint32_t>(piece);
    Result<Reservation> reserved = journal_->reserve(isZero ? RecordType::kZero : RecordType::kWrite, journalIndex_, at,
                                                     piece, payloadBytes);
    if (!reserved) {
      error = EIO;
      break;
    }
    Reservation place = *reserved;
    if (!place.journaled()) return;
    if (payloadBytes != 0) std::memcpy(place.payload, bytes.get(), payloadBytes);
    if (!journal_->complete(place)) error = EIO;
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
    if (io.waiting == nullptr) parked->session = io.reply.keep();
    parked->waiting = io.waiting;
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
  Io io{parked->reply, parked->kind, parked->offset, parked->length, parked->memory(), parked->waiting, nullptr};
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
  const bool isSeek = io.kind == Kind::kSeekData || io.kind == Kind::kSeekHole;
  // A seek that finds nothing is told so by an error, and is none.
  if (errnoValue != 0 && !isSeek) answers_.errors.fetch_add(1, relaxed);
  if (io.waiting != nullptr) {
    (*io.waiting)(errnoValue);
  } else if (errnoValue != 0) {
    io.reply.finish(errnoValue);
  } else if (isSeek) {
    io.reply.found(io.length);
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
  flushGate_.enter();
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
  if (options_.syncBacking || journal_->doubted()) {
    pending->waitingFor = 2;
    sync_->request(partDone);
  }
  journal_->sync([this, partDone](uint64_t, const Error* error) {
    // Given up while this waited: what the journal no longer promises, the backing must. Unless it must be the journal.
    if (error != nullptr && error->code == std::string_view("JOURNAL_FAILED")) {
      partDone(EIO);
    } else if (error != nullptr) {
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
  flushGate_.leave();
}

void Volume::lost(const std::string& message) {
  if (options_.onLost) options_.onLost(message);
}

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "../device/backing.h"
#include "../extent/extent_table.h"
#include "../extent/fault_queue.h"
#include "../extent/range_lock.h"
#include "../frontend/fuse_session.h"
#include "../frontend/request_target.h"
#include "../journal/journal.h"
#include "../sys/loop_device.h"
#include "backing_sync.h"
#include "gate.h"
#include "grant_worker.h"

namespace tidemark {

struct VolumeOptions {
  std::string name;
  std::string path;
  /** 0: the size of the backing. */
  uint64_t sizeBytes = 0;
  bool direct = false;
  bool readOnly = false;
  /** Sync the backing on every flush although there is a journal. */
  bool syncBacking = false;
  uint32_t threads = 1;
  /** 0: a linear table. */
  uint32_t tableBlockBytes = 0;
  /** Faults wait to be taken by takeFaults(). Called on a front-end thread: must not block. */
  std::function<void()> onFaults;
  /** The kernel ended the connection. Called on a front-end thread, once an attachment. */
  std::function<void(const std::string& message)> onLost;
};

struct VolumeCounters {
  uint64_t reads, writes, flushes, trims, readBytes, writtenBytes, faults, inFlight, errors;
};

/**
 * One volume: what hosts do to /dev/loopN reaches the journal, then the backing, then is acknowledged.
 *
 * A write that overlaps one in flight waits for it (range lock), from before its place in the journal is given out
 * until its backing write is done, so journal and backing agree on the order. Reads take no lock on a linear table; on a
 * mapped one they take the range lock too, so that nobody reads a place that was given to another block meanwhile.
 *
 * Locks: lifecycle_ (attach, detach, setJournal, close: one at a time) is taken before anything else, then workers_;
 * neither by the threads that serve requests. Those hold, in this order: the gate, a range, whatever the journal takes
 * inside. A parked request is outside the gate and holds no range.
 */
class Volume final : public RequestTarget {
 public:
  /** @error as Backing::open(), and BACKING_TOO_SMALL, BAD_SIZE, INVALID_ARGUMENT, NO_MEMORY */
  static Result<std::unique_ptr<Volume>> open(VolumeOptions options);
  /** close(); a volume that is still attached is torn off: hosts get errors. */
  ~Volume() override;

  uint64_t sizeBytes() const { return table_->sizeBytes(); }
  uint32_t logicalBlockBytes() const { return logicalBlockBytes_; }
  bool isBlockDevice() const { return isBlockDevice_; }

  /**
   * Mount on an empty regular file, bind a loop device: its path. Nothing is left behind when it fails.
   * @error VOLUME_ATTACHED, VOLUME_CLOSED, MOUNT_FAILED, FUSE_UNAVAILABLE, LOOP_FAILED
   */
  Result<std::string> attach(const std::string& mountPoint);
  /**
   * Once the loop device is gone, by this or from outside, no host uses the volume: whoever then still has the file on
   * the mount point open gets errors.
   *
   * @error DEVICE_BUSY with who holds it, LOOP_FAILED: nothing has changed; MOUNT_FAILED: detach() again
   */
  Result<void> detach();
  /**
   * Waits until requests in flight have ended, holds up new ones meanwhile. Null: journal no longer.
   * @error VOLUME_CLOSED, INVALID_ARGUMENT when the journal's segments cannot take the largest write
   */
  Result<void> setJournal(std::shared_ptr<Journal> journal, uint16_t index);
  /** @error IO_FAILED; for good: a failed sync is never retried */
  Result<void> syncBacking();
  /** After detach(). @error VOLUME_ATTACHED */
  Result<void> close();

  /** Adds to `faults`; false: no more wait. */
  bool takeFaults(std::vector<Fault>& faults);
  /** @error as GrantWorker::grant(), and VOLUME_CLOSED, INVALID_ARGUMENT when the table is linear */
  Result<void> grant(std::vector<Grant> grants);
  Result<void> refuse(std::vector<uint64_t> blocks, int errnoValue);

  VolumeCounters counters() const;

  void read(const Reply& reply, uint64_t offset, uint32_t length, uint8_t* buffer) override;
  void write(const Reply& reply, uint64_t offset, const uint8_t* payload, uint32_t length) override;
  void discard(const Reply& reply, uint64_t offset, uint64_t length, bool keepAllocated) override;
  void flush(const Reply& reply) override;
  int64_t seek(uint64_t offset, int whence) override;
  void lost(const std::string& message) override;

 private:
  enum class Kind : uint8_t { kRead, kWrite, kTrim, kZero };
  struct ParkedIo;
  /** A request under way. `memory` is the payload of a write or the place for what is read. */
  struct Io {
    Reply reply;
    Kind kind;
    uint64_t offset;
    uint64_t length;
    uint8_t* memory = nullptr;
    /** Set once it has been parked: the copy it lives in. */
    std::unique_ptr<ParkedIo> parked;
  };
  struct PendingFlush;

  explicit Volume(VolumeOptions options);
  Result<void> closeLocked();

  void run(Io io);
  /** 0, an errno, or kFaulted with what to ask for. */
  int attempt(const Io& io, std::vector<Fault>& faults);
  int attemptChange(const Io& io);
  void recordAsItIs(uint64_t offset, uint64_t length);
  bool park(Io& io, const std::vector<Fault>& faults);
  void resume(ParkedRequest& request);
  void answer(const Io& io, int errnoValue);
  void finishFlush(const Reply& reply, int errnoValue);

  const VolumeOptions options_;
  uint32_t logicalBlockBytes_ = 512;
  bool isBlockDevice_ = false;

  std::unique_ptr<Backing> backing_;
  std::unique_ptr<ExtentTable> table_;
  RangeLock locks_;
  Gate gate_;
  /** Changed only by who has drained the gate, read only inside it. */
  std::shared_ptr<Journal> journal_;
  uint16_t journalIndex_ = 0;

  std::unique_ptr<FaultQueue> faults_;
  /** Guards the two below against close(). Front-end threads need it not: they have ended by then. */
  std::mutex workers_;
  std::unique_ptr<GrantWorker> grants_;
  std::unique_ptr<BackingSync> sync_;

  std::mutex lifecycle_;
  std::shared_ptr<FuseSession> session_;
  std::optional<LoopDevice> loop_;
  std::atomic<bool> closed_{false};

  struct alignas(64) Counts {
    std::atomic<uint64_t> reads{0}, writes{0}, flushes{0}, trims{0}, readBytes{0}, writtenBytes{0}, arrived{0};
  };
  Counts counts_;
  struct alignas(64) {
    std::atomic<uint64_t> answered{0}, errors{0};
  } answers_;
};

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "../device/backing.h"
#include "../extent/extent_table.h"
#include "../extent/fault_queue.h"
#include "../extent/range_lock.h"
#include "../frontend/fuse_session.h"
#include "../frontend/request_target.h"
#include "../journal/journal.h"
#include "../journal/region_record.h"
#include "../sys/loop_device.h"
#include "backing_sync.h"
#include "gate.h"
#include "grant_worker.h"
#include "thin_io.h"

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
  /** A thin volume: its blocks are the pool's, `path` and `direct` do not count, and `sizeBytes` is not 0. */
  std::shared_ptr<Pool> pool;
  /** The layer of the pool that is written to. */
  uint32_t layer = 0;
  /** Faults wait to be taken by takeFaults(). Called on any thread that serves requests: must not block. */
  std::function<void()> onFaults;
  /** The kernel ended the connection. Called on a front-end thread, once an attachment. */
  std::function<void(const std::string& message)> onLost;
};

/** What a host has of a volume. */
struct Attachment {
  std::string device;
  /** An earlier agent's: its host noticed nothing but a pause. */
  bool takenOver = false;
  /** It will outlive this agent, too; false where the kernel cannot do that. */
  bool kept = false;
};

struct VolumeCounters {
  uint64_t reads, writes, flushes, trims, readBytes, writtenBytes, faults, inFlight, errors, copiedBytes;
};

/**
 * One volume: what hosts do to /dev/loopN reaches the journal, then the backing, then is acknowledged.
 *
 * A write that overlaps one in flight waits for it (range lock), from before its place in the journal is given out
 * until its backing write is done, so journal and backing agree on the order. Reads take no lock on a linear table; on a
 * mapped one they take the range lock too, so that nobody reads a place that was given to another block meanwhile.
 *
 * A thin volume is the same with a pool for its backing, and what it publishes in the pool's log: see thin_io.h.
 *
 * Locks, in this order: lifecycle_ (attach, serve, detach, setJournal, resize, close: one at a time), draining_ (who closes
 * the gates), workers_; none by the threads that serve requests. Those hold, in this order: a gate, a range, whatever the
 * journal and the pool take inside. A parked request is outside the gate and holds no range.
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
   * Go on with the device that an earlier agent had on this mount point, if it is the same and the keeper has it; else
   * mount on an empty regular file and bind a loop device. Nothing is left behind when it fails.
   *
   * The journal is set before: hosts' requests are answered from here on, those that wait already at once.
   * @param readOnly the loop device takes no writes, whatever the volume does
   * @error VOLUME_ATTACHED, VOLUME_CLOSED, MOUNT_FAILED, FUSE_UNAVAILABLE, LOOP_FAILED
   */
  Result<Attachment> attach(const std::string& mountPoint, bool readOnly = false);
  /**
   * Mount on another empty regular file, for programs of this agent: see unserve(). It ends with the agent, so that none
   * of them waits for ever; with a connection in common, what they ask for would be answered before hosts may be.
   * @error as attach()
   */
  Result<void> serve(const std::string& mountPoint);
  /**
   * Take that file away. Not served: nothing to do.
   * @error DEVICE_BUSY with who has it open: nothing has changed; MOUNT_FAILED: unserve() again
   */
  Result<void> unserve();
  /**
   * Once the loop device is gone, by this or from outside, no host uses the volume: whoever then still has the file on
   * its mount point open gets errors.
   *
   * @error DEVICE_BUSY with who holds it, LOOP_FAILED: nothing has changed; MOUNT_FAILED: detach() again
   */
  Result<void> detach();
  /**
   * Waits until requests in flight have ended, holds up new ones meanwhile. Null: journal no longer. With `regions` every
   * write is named there before it reaches the backing, journaled or not.
   * @error VOLUME_CLOSED, INVALID_ARGUMENT when the journal's segments cannot take the largest write
   */
  Result<void> setJournal(std::shared_ptr<Journal> journal, uint16_t index,
                          std::shared_ptr<RegionRecord> regions = nullptr);
  /** @error IO_FAILED; for good: a failed sync is never retried */
  Result<void> syncBacking();
  /**
   * A volume with a table only. Grows also while it is used: file and loop device follow. What a smaller size cuts off is
   * discarded first, so it does not come back when the volume grows again.
   *
   * @error VOLUME_ATTACHED: it is not made smaller while it is attached or served; BAD_SIZE, VOLUME_CLOSED,
   *        INVALID_ARGUMENT, IO_FAILED (the discard; the size is as before), MOUNT_FAILED and LOOP_FAILED (the volume has
   *        grown, hosts do not see it yet: again)
   */
  Result<void> resize(uint64_t sizeBytes);
  /** After detach() and unserve(). @error VOLUME_ATTACHED */
  Result<void> close();

  /**
   * Adds to `faults`; false: no more wait. Whatever was published in the pool's log before a fault was raised is in the
   * pool's take() by then: take that after this, and the answer is made from what the fault was about.
   */
  bool takeFaults(std::vector<Fault>& faults);
  /** @error as GrantWorker::grant(), and VOLUME_CLOSED, INVALID_ARGUMENT when the table is linear */
  Result<void> grant(std::vector<Grant> grants);
  Result<void> loadLeaf(uint64_t leaf, std::vector<int64_t> entries);
  Result<void> refuse(std::vector<uint64_t> blocks, int errnoValue);
  /** Whether the pool has room for holes; without, discards are refused with EOPNOTSUPP. Nothing to do when it is not thin. */
  void setHoles(bool allowed);

  /**
   * A thin volume goes on with another layer, in three calls. A grant must be published under the layer it was made for:
   *
   * 1. holdGrants(), where grants are given: what comes from here on waits. False: a freeze is under way.
   * 2. freeze(): (a) grants given before are carried out, (b) requests in flight end, new ones wait, (c) `operation` is
   *    appended to the pool's log, (d) no entry is writable any more and no place given, (e) requests go on. Hosts wait
   *    from b to e, those of a flush not at all. With d before b a write could reach the frozen layer; with c after e
   *    something written later could be taken for a part of it. Failed: nothing has changed.
   * 3. releaseGrants(), where grants are given, once those who give them know of the new layer. After a freeze what was
   *    held is void, and its faults are raised again; otherwise it is carried out.
   *
   * Requests that wait for an answer wait on, and never hold the freeze up.
   * @return from 2 and 3 the places that were given and not published; none is known to read as zeros
   * @error VOLUME_CLOSED, INVALID_ARGUMENT (not thin, or read-only), and as Pool::append()
   */
  bool holdGrants();
  Result<std::vector<GivenPlace>> freeze(uint32_t layer, std::span<const uint8_t> operation);
  std::vector<GivenPlace> releaseGrants(bool frozen);

  VolumeCounters counters() const;

  void read(const Reply& reply, uint64_t offset, uint32_t length, uint8_t* buffer) override;
  void write(const Reply& reply, uint64_t offset, uint8_t* payload, uint32_t length) override;
  void writeMany(const Reply& reply, std::span<const BatchedWrite> writes) override;
  void discard(const Reply& reply, uint64_t offset, uint64_t length, bool keepAllocated) override;
  void flush(const Reply& reply) override;
  void seek(const Reply& reply, uint64_t offset, int whence) override;
  void lost(const std::string& message) override;

 private:
  enum class Kind : uint8_t { kRead, kWrite, kTrim, kZero, kSeekData, kSeekHole };
  struct ParkedIo;
  /** Told the errno of a request that has no reply of its own. */
  using Waiting = std::shared_ptr<const std::function<void(int errnoValue)>>;
  /** A request under way. `memory` is the payload of a write or the place for what is read. */
  struct Io {
    Reply reply;
    Kind kind;
    uint64_t offset;
    /** Of a seek, in the end: what it found. */
    uint64_t length;
    uint8_t* memory = nullptr;
    /** Set: told instead of a reply. */
    Waiting waiting;
    /** Set once it has been parked: the copy it lives in. */
    std::unique_ptr<ParkedIo> parked;
  };
  struct PendingFlush;

  explicit Volume(VolumeOptions options);
  static Result<std::shared_ptr<Backing>> openBacking(const VolumeOptions& options);
  Result<void> makeTable(uint64_t sizeBytes);
  FuseSessionOptions sessionOptions(const std::string& mountPoint) const;
  Result<bool> takeOver(const std::string& mountPoint, bool readOnly);
  Result<void> bindNew(const std::string& mountPoint, bool readOnly);
  static Result<void> refuseOpenFile(const FuseSession& session);
  Result<void> stopSession(std::shared_ptr<FuseSession>& session);
  Result<void> closeLocked();
  Result<void> discardBeyond(uint64_t sizeBytes);
  void drainGates();
  void reopenGates();

  void run(Io io);
  /** 0, an errno, or kFaulted with what to ask for. */
  int attempt(Io& io, std::vector<Fault>& faults);
  int attemptSeek(Io& io, std::vector<Fault>& faults);
  int fillEdges(const Io& io, std::vector<Fault>& faults);
  int attemptChange(const Io& io, const ThinPlan& plan);
  int change(const Io& io, const ThinPlan& plan);
  void recordAsItIs(uint64_t offset, uint64_t length);
  bool park(Io& io, const std::vector<Fault>& faults);
  void resume(ParkedRequest& request);
  void answer(const Io& io, int errnoValue);
  void finishFlush(const Reply& reply, int errnoValue);

  /** The pool is let go of by close(). */
  VolumeOptions options_;
  uint32_t logicalBlockBytes_ = 512;
  bool isBlockDevice_ = false;

  /** The pool, when the volume is thin. */
  std::shared_ptr<Backing> backing_;
  std::unique_ptr<ExtentTable> table_;
  /** Null: not thin. */
  std::unique_ptr<ThinLayer> thin_;
  RangeLock locks_;
  /** Passed by all requests but flushes, which may be long under way and stand in nobody's way but setJournal()'s. */
  Gate gate_;
  Gate flushGate_;
  /** Changed only by who has drained both gates, read only inside one. */
  std::shared_ptr<Journal> journal_;
  std::shared_ptr<RegionRecord> regions_;
  uint16_t journalIndex_ = 0;

  std::unique_ptr<FaultQueue> faults_;
  /** Guards the two below against close(). Front-end threads need it not: they have ended by then. */
  std::mutex workers_;
  std::unique_ptr<GrantWorker> grants_;
  std::unique_ptr<BackingSync> sync_;

  std::mutex lifecycle_;
  std::mutex draining_;
  /** The hosts', and the loop device on its file. */
  std::shared_ptr<FuseSession> session_;
  std::optional<LoopDevice> loop_;
  /** That of programs of this agent. */
  std::shared_ptr<FuseSession> served_;
  std::atomic<bool> closed_{false};

  struct alignas(64) Counts {
    std::atomic<uint64_t> reads{0}, writes{0}, flushes{0}, trims{0}, readBytes{0}, writtenBytes{0}, arrived{0},
        copiedBytes{0};
  };
  Counts counts_;
  struct alignas(64) {
    std::atomic<uint64_t> answered{0}, errors{0};
  } answers_;
};

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../sys/keeper.h"
#include "../sys/loop_device.h"
#include "../sys/result.h"
#include "../sys/unique_fd.h"
#include "fuse_abi.h"
#include "request_target.h"

namespace tidemark {

struct FuseSessionOptions {
  /** For thread names. */
  std::string name;
  /** An empty regular file. */
  std::string mountPoint;
  uint64_t sizeBytes = 0;
  bool readOnly = false;
  /**
   * Reads and writes of parts of blocks of this size are stretched to whole ones; 0: parts of sectors are refused.
   * A power of two, kLogicalBlockLimit at the most.
   */
  uint32_t stretchBytes = 0;
  /** Many writes in one request are taken: see write_batch.h. */
  bool takesBatches = false;
  /** 1 to 16: each has two descriptors of its own and, while it has something to do, one buffer of 1 MiB. */
  uint32_t threads = 1;
  /** What the loop device takes for the granularity of discards: the kernel cuts them there, file systems leave out less. */
  uint32_t discardBytes = 4096;
};

/**
 * One FUSE mount that is one file: the connection, its descriptors and the threads that serve it.
 *
 * Each thread reads from a descriptor of its own (FUSE_DEV_IOC_CLONE), so that answers do not contend for one lock in
 * the kernel. A request is answered on the descriptor it came from.
 */
class FuseSession : public std::enable_shared_from_this<FuseSession> {
 public:
  /**
   * Mount, negotiate, start the threads. Nothing is left behind when it fails.
   *
   * @param target must outlive the threads, that is stop() or abort()
   * @error MOUNT_FAILED, FUSE_UNAVAILABLE (no /dev/fuse, or a kernel too old)
   */
  static Result<std::shared_ptr<FuseSession>> start(FuseSessionOptions options, RequestTarget& target);

  /**
   * Go on with a connection that another process has begun: what it had read and not answered comes again, then what waits.
   *
   * @param options of the same file: mount point, read-only or not; threads are as many as there were
   * @error FUSE_UNAVAILABLE: it has ended, and is cleared away
   */
  static Result<std::shared_ptr<FuseSession>> takeOver(FuseSessionOptions options, KeptConnection kept,
                                                       RequestTarget& target);

  /** abort() if neither that nor stop() was done. Descriptors close here. */
  ~FuseSession();

  /**
   * Unmount, end the connection and join the threads. For when no loop device needs it any more: whoever still has
   * the file open gets two seconds, then errors.
   *
   * @error MOUNT_FAILED; everything goes on as before
   */
  Result<void> stop();
  /** End it whoever uses it: they get errors. */
  void abort();

  const FuseSessionOptions& options() const { return options_; }

  /**
   * From here on the connection is left to the next agent should this process end, with the loop device that is bound to
   * it. Until then, and where the kernel cannot, it ends with this process.
   * @return false: the kernel cannot (before Linux 6.9)
   */
  bool keepFor(const LoopDevice& loop, bool loopReadOnly);
  bool loopReadOnly() const { return facts_.loopReadOnly != 0; }
  /** Nobody uses it any more: it ends with this process. */
  void keepNoMore();

  /**
   * The file has this size from here on; the kernel, and so the loop device, is told. What is asked beyond a smaller size
   * is refused. @error MOUNT_FAILED: the kernel does not know it yet
   */
  Result<void> resize(uint64_t sizeBytes);

 private:
  FuseSession(FuseSessionOptions options, uint64_t inode, RequestTarget& target);

  Result<void> negotiate();
  void handOver();
  void startThreads();
  Result<void> openDescriptors();
  Result<void> openWaits();
  void serve(size_t index);
  void dispatch(int fd, uint8_t* head, uint8_t* payload, size_t length);
  void answerAttributes(const Reply& reply, bool isSetattr, const uint8_t* arguments);
  void discard(const Reply& reply, const fuse_fallocate_in& range);
  void read(Reply reply, const fuse_read_in& in, uint8_t* buffer);
  void write(Reply reply, const fuse_write_in& in, uint8_t* payload);
  void writeBatch(const Reply& reply, const uint8_t* arguments, size_t length, uint8_t* payload);
  bool stretch(Reply& reply, uint64_t& offset, uint32_t& length) const;
  struct fuse_attr attributes() const;
  bool isInside(uint64_t offset, uint64_t length) const;
  void join();

  const FuseSessionOptions options_;
  std::atomic<uint64_t> sizeBytes_;
  RequestTarget& target_;
  /** What the keeper knows. By the connection's number, random and that of the inode, the session is known everywhere. */
  KeptFacts facts_;
  /** [0] is the one that was mounted. Fixed once the threads run. */
  std::vector<UniqueFd> descriptors_;
  /** One for each descriptor: an epoll that says when there is something to read. Fixed as well. */
  std::vector<UniqueFd> waits_;
  std::vector<std::thread> threads_;
  /** Ends the connection: unmounting alone does not while somebody has the file open or mounted elsewhere. */
  UniqueFd connectionSwitch_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> lostSaid_{false};
  bool mounted_ = false;
};

}  // namespace tidemark

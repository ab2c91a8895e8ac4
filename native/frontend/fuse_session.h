// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

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
  /** 1 to 16: each has its own descriptor and one buffer of 1 MiB. */
  uint32_t threads = 1;
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

 private:
  FuseSession(FuseSessionOptions options, RequestTarget& target);

  Result<void> negotiate();
  Result<void> openDescriptors();
  void serve(size_t index);
  void dispatch(int fd, uint8_t* head, uint8_t* payload, size_t length);
  void answerAttributes(const Reply& reply, bool isSetattr, const uint8_t* arguments);
  void discard(const Reply& reply, const fuse_fallocate_in& range);
  struct fuse_attr attributes() const;
  void join();

  const FuseSessionOptions options_;
  RequestTarget& target_;
  /** Random: filesystem and inode number name this session, although the kernel uses the former again. */
  const uint64_t inode_;
  /** [0] is the one that was mounted. Fixed once the threads run. */
  std::vector<UniqueFd> descriptors_;
  std::vector<std::thread> threads_;
  /** Ends the connection: unmounting alone does not while somebody has the file open or mounted elsewhere. */
  UniqueFd connectionSwitch_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> lostSaid_{false};
  bool mounted_ = false;
};

}  // namespace tidemark

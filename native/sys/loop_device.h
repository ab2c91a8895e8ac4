// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "result.h"
#include "unique_fd.h"

namespace tidemark {

/**
 * A bound /dev/loopN. Not released by its destructor: release() may fail, and a host may still be using it.
 *
 * The number alone does not make it ours: once somebody has unbound it from outside, the kernel may hand the same
 * number to another program. So the file it was bound to is remembered, and a device bound to any other is left alone.
 */
class LoopDevice {
 public:
  /**
   * Bind a free loop device to the open file, with direct I/O.
   *
   * @param blockBytes logical block size hosts see: 512 to 4096
   * @error LOOP_FAILED
   */
  static Result<LoopDevice> bind(int file, bool readOnly, uint32_t blockBytes);

  /** One that was bound before, by bind() in another process. */
  static LoopDevice bound(std::string path, dev_t filesystem, ino_t inode) {
    return LoopDevice(std::move(path), filesystem, inode);
  }

  const std::string& path() const { return path_; }
  /** The file it was bound to. */
  dev_t filesystem() const { return filesystem_; }
  ino_t inode() const { return inode_; }

  /**
   * Unbind: waits for requests in flight, then the file is closed by the kernel. On failure the device stays bound
   * and usable. Released already, whoever has the device now: nothing to do.
   *
   * @param onUnused called when nobody uses the device any more and it is about to be unbound; not when it was already
   * @error DEVICE_BUSY with who holds it; LOOP_FAILED
   */
  Result<void> release(const std::function<void()>& onUnused = nullptr);

  /** The file has another size: so has the device from here on. @error LOOP_FAILED */
  Result<void> followFile() const;

  /** Whether the device is still bound to the file it was bound to. @error LOOP_FAILED: the kernel does not say */
  Result<bool> isBound() const;

 private:
  LoopDevice(std::string path, dev_t filesystem, ino_t inode)
      : path_(std::move(path)), filesystem_(filesystem), inode_(inode) {}
  Result<bool> isBound(int fd) const;

  std::string path_;
  /** The file: its filesystem and inode number. */
  dev_t filesystem_;
  ino_t inode_;
};

/** Paths of loop devices whose backing file has this path, also when that file can no longer be reached. */
std::vector<std::string> loopDevicesByBackingPath(const std::string& backingPath);

/**
 * Unbind the device from the file with this path, whoever bound it, unless it has another by now. A device in use is unbound
 * by the kernel when its last user closes it.
 */
void unbindWhenUnused(const std::string& loopPath, const std::string& backingPath);

}  // namespace tidemark

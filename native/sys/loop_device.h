// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "result.h"
#include "unique_fd.h"

namespace tidemark {

/** A bound /dev/loopN. Not released by its destructor: release() may fail, and a host may still be using it. */
class LoopDevice {
 public:
  /**
   * Bind a free loop device to the open file, with direct I/O.
   *
   * @param blockBytes logical block size hosts see: 512 to 4096
   * @error LOOP_FAILED
   */
  static Result<LoopDevice> bind(int file, bool readOnly, uint32_t blockBytes);

  const std::string& path() const { return path_; }

  /**
   * Unbind: waits for requests in flight, then the file is closed by the kernel. On failure the device stays bound
   * and usable.
   *
   * @error DEVICE_BUSY with who holds it
   */
  Result<void> release();

 private:
  explicit LoopDevice(std::string path) : path_(std::move(path)) {}
  Result<bool> isBound() const;

  std::string path_;
};

/** Paths of loop devices whose backing file has this path, also when that file can no longer be reached. */
std::vector<std::string> loopDevicesByBackingPath(const std::string& backingPath);

/** Unbind whoever bound it; a device in use is unbound by the kernel when its last user closes it. */
void unbindWhenUnused(const std::string& loopPath);

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include "../sys/unique_fd.h"
#include "backing.h"

namespace tidemark {

/** A flat file or a raw block device, opened so that nobody else can take it. */
class DeviceBacking final : public Backing {
 public:
  /**
   * @error NOT_FOUND, NOT_PERMITTED, READ_ONLY, NOT_A_FILE_OR_BLOCK_DEVICE, DEVICE_BUSY (mounted, or open exclusively,
   *        or locked by another volume, or bound to a loop device), IO_FAILED
   */
  static Result<std::unique_ptr<DeviceBacking>> open(const BackingOptions& options);

  /** As it was opened. */
  const std::string& path() const { return path_; }
  bool isBlockDevice() const override { return isBlockDevice_; }
  uint64_t sizeBytes() const override { return sizeBytes_; }
  uint32_t logicalBlockBytes() const override { return logicalBlockBytes_; }

  int read(uint64_t offset, void* bytes, size_t length) const override;
  int write(uint64_t offset, const void* bytes, size_t length) override;
  int trim(uint64_t offset, uint64_t length) override;
  int zero(uint64_t offset, uint64_t length) override;
  int sync() override;
  int64_t seek(uint64_t offset, int whence) const override;

  /**
   * Give the space back without writing anything: punch a hole in a file, BLKDISCARD on a block device. What the medium
   * cannot do is left out, without an error.
   *
   * @param readsAsZeros set to false when the range may hold anything afterwards; otherwise left as it is
   */
  int discard(uint64_t offset, uint64_t length, bool& readsAsZeros);

  /** Another descriptor of the same file or device, through the page cache whatever the options said. */
  Result<UniqueFd> openCached() const;

 private:
  DeviceBacking() = default;
  int writeZeros(uint64_t offset, uint64_t length);

  std::string path_;
  UniqueFd fd_;
  bool isBlockDevice_ = false;
  uint64_t sizeBytes_ = 0;
  uint32_t logicalBlockBytes_ = 512;
  size_t largestWriteBytes_ = 0;
};

}  // namespace tidemark

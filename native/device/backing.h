// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "../sys/result.h"
#include "../sys/unique_fd.h"

namespace tidemark {

struct BackingOptions {
  std::string path;
  /** O_DIRECT instead of through the page cache: requests must then be aligned to logicalBlockBytes(). */
  bool direct = false;
  bool readOnly = false;
};

/**
 * Where the bytes of a volume lie: a flat file or a raw block device, opened so that nobody else can take it.
 *
 * Calls return 0 or an errno. Offsets and lengths are bytes. All calls may be made from several threads.
 */
class Backing {
 public:
  /**
   * @error NOT_FOUND, NOT_PERMITTED, READ_ONLY, NOT_A_FILE_OR_BLOCK_DEVICE, DEVICE_BUSY (mounted, or open exclusively,
   *        or locked by another volume, or bound to a loop device), IO_FAILED
   */
  static Result<std::unique_ptr<Backing>> open(const BackingOptions& options);

  bool isBlockDevice() const { return isBlockDevice_; }
  /** At the time of opening, rounded down to whole logical blocks. */
  uint64_t sizeBytes() const { return sizeBytes_; }
  /** Smallest aligned write the medium takes without reading first: 512 for files through the page cache. */
  uint32_t logicalBlockBytes() const { return logicalBlockBytes_; }

  /** All bytes; what lies behind the end of the file reads as zeros. */
  int read(uint64_t offset, void* bytes, size_t length) const;
  /** All bytes or an error; not durable until sync(). */
  int write(uint64_t offset, const void* bytes, size_t length);
  /** The range reads as zeros and its space may be given back. */
  int trim(uint64_t offset, uint64_t length);
  /** The range reads as zeros and stays allocated where the medium can do that. */
  int zero(uint64_t offset, uint64_t length);
  /** fdatasync. A failure must never be retried: the kernel reports lost pages once. */
  int sync();
  /** lseek with SEEK_DATA or SEEK_HOLE; media without holes are all data. Returns the offset or a negative errno. */
  int64_t seek(uint64_t offset, int whence) const;

 private:
  Backing() = default;
  int writeZeros(uint64_t offset, uint64_t length);

  UniqueFd fd_;
  bool isBlockDevice_ = false;
  uint64_t sizeBytes_ = 0;
  uint32_t logicalBlockBytes_ = 512;
  size_t largestWriteBytes_ = 0;
};

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "../sys/result.h"

namespace tidemark {

struct BackingOptions {
  std::string path;
  /** O_DIRECT instead of through the page cache: requests must then be aligned to logicalBlockBytes(). */
  bool direct = false;
  bool readOnly = false;
};

/**
 * Where the bytes of a volume lie: a file or raw block device (DeviceBacking), or the devices of a pool (Pool).
 *
 * Calls return 0 or an errno. Offsets and lengths are bytes. All calls may be made from several threads.
 */
class Backing {
 public:
  /** A DeviceBacking. @error as DeviceBacking::open() */
  static Result<std::unique_ptr<Backing>> open(const BackingOptions& options);

  virtual ~Backing() = default;
  Backing(const Backing&) = delete;
  Backing& operator=(const Backing&) = delete;

  virtual bool isBlockDevice() const = 0;
  /** At the time of opening, rounded down to whole logical blocks. */
  virtual uint64_t sizeBytes() const = 0;
  /** Smallest aligned write the medium takes without reading first: 512 for files through the page cache. */
  virtual uint32_t logicalBlockBytes() const = 0;

  /** All bytes; what lies behind the end of the file reads as zeros. */
  virtual int read(uint64_t offset, void* bytes, size_t length) const = 0;
  /** All bytes or an error; not durable until sync(). */
  virtual int write(uint64_t offset, const void* bytes, size_t length) = 0;
  /** The range reads as zeros and its space may be given back. */
  virtual int trim(uint64_t offset, uint64_t length) = 0;
  /** The range reads as zeros and stays allocated where the medium can do that. */
  virtual int zero(uint64_t offset, uint64_t length) = 0;
  /**
   * Everything whose call has returned is durable. A failure must never be retried: the kernel reports lost pages once.
   */
  virtual int sync() = 0;
  /** lseek with SEEK_DATA or SEEK_HOLE; media without holes are all data. Returns the offset or a negative errno. */
  virtual int64_t seek(uint64_t offset, int whence) const = 0;

 protected:
  Backing() = default;
};

}  // namespace tidemark

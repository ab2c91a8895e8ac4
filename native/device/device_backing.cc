// SPDX-License-Identifier: Apache-2.0
#include "device_backing.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>

#include "../sys/data_sync.h"
#include "../sys/holders.h"

namespace tidemark {
namespace {

constexpr uint32_t sectorBytes = 512;
constexpr uint32_t maximumLogicalBlockBytes = 4096;
constexpr size_t zeroBytes = 1 << 20;
/**
 * Largest write into the page cache, bytes. The kernel makes one folio for one write, up to megabytes, and each small
 * write into a large folio then walks all of its buffers: 4 KiB at random cost 14 us after a fill with 1 MiB writes,
 * 3 us after this.
 */
constexpr size_t cachedWriteBytes = 64 << 10;
alignas(4096) const unsigned char zeros[zeroBytes] = {};

Error openError(const BackingOptions& options, const struct stat& status, int errnoValue) {
  switch (errnoValue) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
      return Error::fromErrno("NOT_FOUND", options.path, errnoValue);
    case EROFS:
      return Error::fromErrno("READ_ONLY", options.path, errnoValue);
    case EACCES:
    case EPERM:
    case EBUSY: {
      // Some kernels answer EPERM for a device that is mounted.
      const std::string holders = S_ISBLK(status.st_mode) ? describeDeviceHolders(status.st_rdev) : "";
      if (errnoValue != EBUSY && holders.empty()) {
        return Error::fromErrno("NOT_PERMITTED", options.path, errnoValue);
      }
      return Error{"DEVICE_BUSY", EBUSY, options.path + " is " + (holders.empty() ? "in use" : holders)};
    }
    default:
      return Error::fromErrno("IO_FAILED", "open " + options.path, errnoValue);
  }
}

bool isUnsupported(int errnoValue) {
  return errnoValue == EOPNOTSUPP || errnoValue == ENOSYS || errnoValue == EINVAL || errnoValue == ENODEV;
}

int fallocateFully(int fd, int mode, uint64_t offset, uint64_t length) {
  while (fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length)) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

}  // namespace

Result<std::unique_ptr<Backing>> Backing::open(const BackingOptions& options) {
  auto opened = DeviceBacking::open(options);
  if (!opened) return opened.error();
  return std::unique_ptr<Backing>(opened.take());
}

Result<std::unique_ptr<DeviceBacking>> DeviceBacking::open(const BackingOptions& options) {
  // Looked at before opening: opening a pipe would wait, opening a tape would move it.
  struct stat status {};
  if (stat(options.path.c_str(), &status) != 0) return openError(options, status, errno);
  const bool isBlock = S_ISBLK(status.st_mode);
  if (!isBlock && !S_ISREG(status.st_mode)) {
    return Error{"NOT_A_FILE_OR_BLOCK_DEVICE", 0, options.path + " is neither a regular file nor a block device"};
  }
  std::unique_ptr<DeviceBacking> backing(new DeviceBacking());
  backing->path_ = options.path;
  backing->isBlockDevice_ = isBlock;
  const int flags = (options.readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | (options.direct ? O_DIRECT : 0) |
                    (isBlock ? O_EXCL : 0);
  backing->fd_.reset(::open(options.path.c_str(), flags));
  if (!backing->fd_) return openError(options, status, errno);
  const int fd = backing->fd_.get();

  struct stat opened {};
  if (fstat(fd, &opened) != 0) return Error::fromErrno("IO_FAILED", "stat " + options.path, errno);
  if (opened.st_dev != status.st_dev || opened.st_ino != status.st_ino) {
    return Error{"NOT_FOUND", 0, options.path + " was replaced while it was opened"};
  }
  if (isBlock) {
    uint64_t size = 0;
    int logical = 0;
    if (ioctl(fd, BLKGETSIZE64, &size) != 0) return Error::fromErrno("IO_FAILED", "size of " + options.path, errno);
    if (ioctl(fd, BLKSSZGET, &logical) != 0) return Error::fromErrno("IO_FAILED", "block of " + options.path, errno);
    backing->sizeBytes_ = size;
    backing->logicalBlockBytes_ = static_cast<uint32_t>(logical);
  } else {
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
      const std::string holders = describeFileHolders(opened.st_dev, opened.st_ino, fd);
      return Error{"DEVICE_BUSY", EBUSY, options.path + " is " + (holders.empty() ? "locked" : holders)};
    }
    const std::string loop = loopDeviceOf(opened.st_dev, opened.st_ino);
    if (!loop.empty()) return Error{"DEVICE_BUSY", EBUSY, options.path + " is the backing file of " + loop};
    backing->sizeBytes_ = static_cast<uint64_t>(opened.st_size);
    if (options.direct) {
      struct statx extended {};
      if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &extended) == 0 && (extended.stx_mask & STATX_DIOALIGN) != 0 &&
          extended.stx_dio_offset_align != 0) {
        backing->logicalBlockBytes_ = extended.stx_dio_offset_align;
      } else {
        backing->logicalBlockBytes_ = maximumLogicalBlockBytes;
      }
    }
  }
  if (options.direct) {
    backing->largestWriteBytes_ = SIZE_MAX;
  } else {
    // Hosts read ahead themselves; readahead here would only fill the cache with large folios (see above).
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    backing->largestWriteBytes_ = cachedWriteBytes;
  }
  backing->logicalBlockBytes_ = std::clamp(backing->logicalBlockBytes_, sectorBytes, maximumLogicalBlockBytes);
  backing->sizeBytes_ -= backing->sizeBytes_ % backing->logicalBlockBytes_;
  return backing;
}

int DeviceBacking::read(uint64_t offset, void* bytes, size_t length) const {
  auto* at = static_cast<unsigned char*>(bytes);
  while (length > 0) {
    const ssize_t got = pread(fd_.get(), at, length, static_cast<off_t>(offset));
    if (got < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    if (got == 0) {
      std::memset(at, 0, length);
      return 0;
    }
    at += got;
    offset += static_cast<uint64_t>(got);
    length -= static_cast<size_t>(got);
  }
  return 0;
}

int DeviceBacking::write(uint64_t offset, const void* bytes, size_t length) {
  const auto* at = static_cast<const unsigned char*>(bytes);
  while (length > 0) {
    const size_t piece = std::min(length, largestWriteBytes_);
    const ssize_t done = pwrite(fd_.get(), at, piece, static_cast<off_t>(offset));
    if (done < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    if (done == 0) return EIO;
    at += done;
    offset += static_cast<uint64_t>(done);
    length -= static_cast<size_t>(done);
  }
  return 0;
}

int DeviceBacking::writeZeros(uint64_t offset, uint64_t length) {
  while (length > 0) {
    const size_t piece = static_cast<size_t>(std::min<uint64_t>(length, zeroBytes));
    const int failed = write(offset, zeros, piece);
    if (failed != 0) return failed;
    offset += piece;
    length -= piece;
  }
  return 0;
}

int DeviceBacking::trim(uint64_t offset, uint64_t length) {
  if (length == 0) return 0;
  // On block devices the kernel answers PUNCH_HOLE only when the device promises zeros afterwards.
  const int punched = fallocateFully(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
  return isUnsupported(punched) ? zero(offset, length) : punched;
}

int DeviceBacking::zero(uint64_t offset, uint64_t length) {
  if (length == 0) return 0;
  const int zeroed = fallocateFully(fd_.get(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
  return isUnsupported(zeroed) ? writeZeros(offset, length) : zeroed;
}

int DeviceBacking::sync() { return syncData(fd_.get()); }

int64_t DeviceBacking::seek(uint64_t offset, int whence) const {
  if (offset >= sizeBytes_) return -ENXIO;
  // lseek moves the descriptor's position, which nothing here uses.
  const off_t found = lseek(fd_.get(), static_cast<off_t>(offset), whence);
  if (found >= 0) return found;
  if (errno == EINVAL || errno == EOPNOTSUPP) {
    return static_cast<int64_t>(whence == SEEK_DATA ? offset : sizeBytes_);
  }
  return -errno;
}

int DeviceBacking::discard(uint64_t offset, uint64_t length, bool& readsAsZeros) {
  if (length == 0) return 0;
  if (!isBlockDevice_) {
    const int punched = fallocateFully(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
    if (!isUnsupported(punched)) return punched;
    readsAsZeros = false;
    return 0;
  }
  // What a device reads afterwards is its own business: many say zeros and some do not keep to it.
  readsAsZeros = false;
  uint64_t range[2] = {offset, length};
  while (ioctl(fd_.get(), BLKDISCARD, range) != 0) {
    if (errno == EINTR) continue;
    return isUnsupported(errno) ? 0 : errno;
  }
  return 0;
}

Result<UniqueFd> DeviceBacking::openCached() const {
  // By way of the descriptor: the path may name another file by now.
  const std::string own = "/proc/self/fd/" + std::to_string(fd_.get());
  UniqueFd fd(::open(own.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return Error::fromErrno("IO_FAILED", "open " + path_ + " again", errno);
  return fd;
}

}  // namespace tidemark

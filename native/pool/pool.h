// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "../device/backing.h"
#include "../device/device_backing.h"
#include "../sys/result.h"
#include "mapping_log.h"

namespace tidemark {

/** Bits of a location below the device number: 2^34 blocks a device. */
constexpr uint32_t kDeviceShift = 34;
constexpr uint32_t kPoolDeviceLimit = 64;
/** All locations are below this. */
constexpr uint64_t kLocationLimit = uint64_t{kPoolDeviceLimit} << kDeviceShift;

struct PoolDeviceOptions {
  std::string path;
  /** The device has at least so many bytes. */
  uint64_t sizeBytes = 0;
};

/** Where the mapping log lies on device 0: see MappingLogOptions. */
struct PoolLogPlace {
  uint64_t offset = 0;
  uint64_t capacityRecords = 0;
  uint32_t seed = 0;
  uint64_t head = 0;
  uint64_t tail = 0;
};

struct PoolOptions {
  std::string name;
  std::vector<PoolDeviceOptions> devices;
  /** A power of two, 4 KiB to 1 MiB. */
  uint32_t blockBytes = 0;
  /** O_DIRECT for the data. */
  bool direct = false;
  PoolLogPlace log;
  /** On any thread that uses the pool, without locks. Must not block or call back into the pool. */
  std::function<void(const LogEvent&)> onEvent;
  /** Tests replace these to inject faults. Returns 0 or an errno. */
  std::function<int(uint32_t number, Backing& device)> syncDevice;
  LogSystemCalls logSystem;
};

struct BlockRange {
  uint64_t location = 0;
  uint64_t count = 0;
};

/**
 * The devices of a thin pool as one backing, and its mapping log. Shared by all volumes of the pool.
 *
 * A byte offset on this backing is `location * blockBytes + offset in the block`; no request spans two devices. Calls
 * as of Backing; sync() makes the data durable and then commits what the log says about them: one sync serves all who ask
 * meanwhile. A sync or log write that failed ends syncing and publishing for good (EIO); reads and writes go on.
 *
 * Locks: `syncing_` (who syncs and who waits for that; held for a few instructions), `adding_` (one device at a time),
 * and that of the log. None is taken while another is held.
 */
class Pool final : public Backing {
 public:
  /** @error as DeviceBacking::open(), and BACKING_TOO_SMALL, INVALID_ARGUMENT */
  static Result<std::shared_ptr<Pool>> open(PoolOptions options);
  /** Syncs nothing. */
  ~Pool() override;

  const std::string& name() const { return options_.name; }
  uint32_t blockBytes() const { return options_.blockBytes; }
  bool isBlockDevice() const override { return false; }
  /** Of all devices together. Offsets are not below it: they are made of locations. */
  uint64_t sizeBytes() const override;
  /** 512, unless the data go past the page cache: then the largest of the devices'. */
  uint32_t logicalBlockBytes() const override { return logicalBlockBytes_; }

  int read(uint64_t offset, void* bytes, size_t length) const override;
  int write(uint64_t offset, const void* bytes, size_t length) override;
  int trim(uint64_t offset, uint64_t length) override;
  int zero(uint64_t offset, uint64_t length) override;
  /** Of the device the offset lies on; a found offset is one of this backing. */
  int64_t seek(uint64_t offset, int whence) const override;

  /** As syncCovered(): 0 or EIO. */
  int sync() override;
  /**
   * Everything acknowledged and published when called is durable, data first, log after, committed up to the sequence
   * returned.
   * @error POOL_FAILED, POOL_CLOSED, LOG_FULL
   */
  Result<uint64_t> syncCovered();

  /** `block` of `layer` lies at `location` from here on; its data are there. 0 or EIO; waits for room in the log. */
  int publishMap(uint32_t layer, uint64_t block, uint64_t location) {
    return log_->publish(LogRecordType::kMap, layer, block, location);
  }
  /** `count` blocks of `layer` from `block` on read as zeros. As above. */
  int publishHoles(uint32_t layer, uint64_t block, uint64_t count) {
    return log_->publish(LogRecordType::kHole, layer, block, count);
  }
  /** Records made by the caller, as of NativePool.append(): never waits. @error see MappingLog::append() */
  Result<uint64_t> append(std::span<const uint8_t> records) { return log_->append(records); }
  MappingLog& log() { return *log_; }

  /**
   * Give the space of these blocks back on their devices. True when all of them now read as zeros for certain.
   * @error INVALID_ARGUMENT: a range that is not on a device; IO_FAILED
   */
  Result<bool> discard(std::span<const BlockRange> ranges);

  /** The next number. Volumes may run. @error as open(), and TOO_MANY_DEVICES */
  Result<void> addDevice(const PoolDeviceOptions& device);
  uint32_t deviceCount() const { return deviceCount_.load(std::memory_order_acquire); }

  /** Whoever waits for the log gets EIO. No other call may be in progress or come later. */
  void close();

 private:
  struct Device {
    std::unique_ptr<DeviceBacking> backing;
    /**
     * Set after every change, cleared before the sync: a change that has returned is synced or marked. Begins set: what
     * an agent that died wrote may be in the page cache alone.
     */
    std::atomic<bool> dirty{true};
    void touched() {
      if (!dirty.load()) dirty.store(true);
    }
  };
  struct Place {
    Device& device;
    uint64_t offset;
  };

  explicit Pool(PoolOptions options);
  Place placeOf(uint64_t offset, uint64_t length) const;
  Result<uint64_t> syncOnce();

  const PoolOptions options_;
  const uint32_t blockShift_;
  uint32_t logicalBlockBytes_ = 512;
  /** Only ever filled, in order: a reader sees a device whole or not at all. */
  std::array<std::atomic<Device*>, kPoolDeviceLimit> devices_{};
  std::atomic<uint32_t> deviceCount_{0};
  std::unique_ptr<MappingLog> log_;

  std::mutex adding_;

  /** Guards what follows. */
  std::mutex syncing_;
  std::condition_variable synced_;
  bool syncRuns_ = false;
  uint64_t syncsBegun_ = 0;
  uint64_t syncsEnded_ = 0;
  Result<uint64_t> lastSync_ = uint64_t{0};
};

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#include "pool.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cerrno>
#include <cstring>

namespace tidemark {
namespace {

constexpr uint32_t minimumBlockBytes = 4 << 10;
constexpr uint32_t maximumBlockBytes = 1 << 20;
constexpr uint64_t deviceBlocks = uint64_t{1} << kDeviceShift;

}  // namespace

Pool::Pool(PoolOptions options)
    : options_(std::move(options)), blockShift_(static_cast<uint32_t>(std::countr_zero(options_.blockBytes))) {}

Pool::~Pool() { close(); }

Result<std::shared_ptr<Pool>> Pool::open(PoolOptions options) {
  if (!std::has_single_bit(options.blockBytes) || options.blockBytes < minimumBlockBytes ||
      options.blockBytes > maximumBlockBytes) {
    return Error{"INVALID_ARGUMENT", EINVAL, "a pool's block is a power of two from 4 KiB to 1 MiB"};
  }
  if (options.devices.empty()) return Error{"INVALID_ARGUMENT", EINVAL, "a pool has a device at the least"};
  if (!options.syncDevice) options.syncDevice = [](uint32_t, Backing& device) { return device.sync(); };
  std::shared_ptr<Pool> pool(new Pool(std::move(options)));
  const PoolOptions& kept = pool->options_;
  for (const PoolDeviceOptions& device : kept.devices) {
    Result<void> added = pool->addDevice(device);
    if (!added) return added.error();
  }
  DeviceBacking& first = *pool->devices_[0].load()->backing;
  const PoolLogPlace& place = kept.log;
  const uint64_t room = first.sizeBytes() - std::min(first.sizeBytes(), place.offset);
  if (place.capacityRecords > room / kLogPlaceBytes) {
    return Error{"BACKING_TOO_SMALL", 0, kept.devices.front().path + " ends before the mapping log does"};
  }
  auto fd = first.openCached();
  if (!fd) return fd.error();
  auto log = MappingLog::open({fd.take(), place.offset, place.capacityRecords, place.seed, place.head, place.tail,
                               kept.onEvent, kept.logSystem});
  if (!log) return log.error();
  pool->log_ = log.take();
  return pool;
}

Result<void> Pool::addDevice(const PoolDeviceOptions& given) {
  const std::lock_guard lock(adding_);
  const uint32_t number = deviceCount_.load();
  if (number == kPoolDeviceLimit) {
    return Error{"TOO_MANY_DEVICES", 0, options_.name + " has " + std::to_string(number) + " devices already"};
  }
  auto opened = DeviceBacking::open({given.path, options_.direct, false});
  if (!opened) return opened.error();
  auto device = std::make_unique<Device>();
  device->backing = opened.take();
  const uint64_t size = device->backing->sizeBytes();
  if (size < given.sizeBytes) {
    return Error{"BACKING_TOO_SMALL", 0,
                 given.path + " has " + std::to_string(size) + " bytes, " + std::to_string(given.sizeBytes) +
                     " are needed"};
  }
  if (options_.direct) {
    const uint32_t logical = device->backing->logicalBlockBytes();
    // Volumes that are attached already were told what they may write.
    if (log_ != nullptr && logical > logicalBlockBytes_) {
      return Error{"BLOCK_SIZE_DIFFERS", 0, given.path + " has blocks of " + std::to_string(logical) + " bytes"};
    }
    logicalBlockBytes_ = std::max(logicalBlockBytes_, logical);
  }
  devices_[number].store(device.release(), std::memory_order_release);
  deviceCount_.store(number + 1, std::memory_order_release);
  return {};
}

uint64_t Pool::sizeBytes() const {
  uint64_t sum = 0;
  for (uint32_t number = 0; number < deviceCount(); number++) {
    sum += devices_[number].load(std::memory_order_acquire)->backing->sizeBytes();
  }
  return sum;
}

Pool::Place Pool::placeOf(uint64_t offset, uint64_t length) const {
  const uint64_t location = offset >> blockShift_;
  const uint64_t number = location >> kDeviceShift;
  assert(number < kPoolDeviceLimit);
  assert(length == 0 || ((offset + length - 1) >> blockShift_) >> kDeviceShift == number);
  Device* const device = devices_[number].load(std::memory_order_acquire);
  assert(device != nullptr);
  return {*device, offset - ((number << kDeviceShift) << blockShift_)};
}

int Pool::read(uint64_t offset, void* bytes, size_t length) const {
  const Place place = placeOf(offset, length);
  return place.device.backing->read(place.offset, bytes, length);
}

int Pool::write(uint64_t offset, const void* bytes, size_t length) {
  const Place place = placeOf(offset, length);
  const int failed = place.device.backing->write(place.offset, bytes, length);
  place.device.touched();
  return failed;
}

int Pool::trim(uint64_t offset, uint64_t length) {
  const Place place = placeOf(offset, length);
  const int failed = place.device.backing->trim(place.offset, length);
  place.device.touched();
  return failed;
}

int Pool::zero(uint64_t offset, uint64_t length) {
  const Place place = placeOf(offset, length);
  const int failed = place.device.backing->zero(place.offset, length);
  place.device.touched();
  return failed;
}

int64_t Pool::seek(uint64_t offset, int whence) const {
  const Place place = placeOf(offset, 0);
  const int64_t found = place.device.backing->seek(place.offset, whence);
  return found < 0 ? found : static_cast<int64_t>(offset - place.offset) + found;
}

int Pool::sync() { return syncCovered() ? 0 : EIO; }

Result<uint64_t> Pool::syncCovered() {
  std::unique_lock lock(syncing_);
  // One that runs may have passed what the caller wrote: the next one counts.
  const uint64_t wanted = syncsBegun_ + 1;
  while (syncsEnded_ < wanted) {
    if (syncRuns_) {
      synced_.wait(lock);
      continue;
    }
    syncRuns_ = true;
    const uint64_t mine = ++syncsBegun_;
    lock.unlock();
    Result<uint64_t> done = syncOnce();
    lock.lock();
    syncRuns_ = false;
    syncsEnded_ = mine;
    lastSync_ = std::move(done);
    synced_.notify_all();
  }
  // A later one than that which was waited for says the same or more.
  return lastSync_;
}

/**
 * (1) Note the head, (2) sync the devices, (3) commit up to the head. With 1 after 2, or 3 before 2, a COMMIT would
 * cover records whose data are not there yet, and after a power cut a volume would show what another had written.
 */
Result<uint64_t> Pool::syncOnce() {
  if (std::optional<Error> ended = log_->ended()) return *ended;
  const uint64_t head = log_->head();
  for (uint32_t number = 0; number < deviceCount(); number++) {
    Device& device = *devices_[number].load(std::memory_order_acquire);
    if (!device.dirty.exchange(false)) continue;
    const int failed = options_.syncDevice(number, *device.backing);
    if (failed != 0) {
      log_->fail("sync " + device.backing->path() + ": " + std::strerror(failed));
      return *log_->ended();
    }
  }
  Result<void> committed = log_->commit(head);
  if (!committed) return committed.error();
  return head;
}

Result<bool> Pool::discard(std::span<const BlockRange> ranges) {
  for (const BlockRange& range : ranges) {
    const uint64_t index = range.location % deviceBlocks;
    const uint64_t number = range.location / deviceBlocks;
    if (number >= deviceCount() || range.count > deviceBlocks - index ||
        (index + range.count) << blockShift_ >
            devices_[number].load(std::memory_order_acquire)->backing->sizeBytes()) {
      return Error{"INVALID_ARGUMENT", EINVAL, "a range to discard is not on a device of the pool"};
    }
  }
  bool readAsZeros = true;
  for (const BlockRange& range : ranges) {
    const uint64_t length = range.count << blockShift_;
    const Place place = placeOf(range.location << blockShift_, length);
    const int failed = place.device.backing->discard(place.offset, length, readAsZeros);
    place.device.touched();
    if (failed != 0) return Error::fromErrno("IO_FAILED", "discard on " + place.device.backing->path(), failed);
  }
  return readAsZeros;
}

void Pool::close() {
  if (log_ != nullptr) log_->close();
  log_.reset();
  for (std::atomic<Device*>& device : devices_) delete device.exchange(nullptr);
  deviceCount_ = 0;
}

}  // namespace tidemark

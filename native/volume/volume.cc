// SPDX-License-Identifier: Apache-2.0
#include "volume.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <future>

#include "../sys/holders.h"
#include "../sys/mount_point.h"

namespace tidemark {

namespace {
constexpr uint64_t sectorBytes = 512;
constexpr uint32_t maximumThreads = 16;
constexpr uint32_t maximumTableBlockBytes = 64 << 20;
}  // namespace

Volume::Volume(VolumeOptions options) : options_(std::move(options)) {}

Volume::~Volume() {
  const std::lock_guard lock(lifecycle_);
  if (session_) session_->abort();
  session_.reset();
  loop_.reset();
  (void)closeLocked();
}

Result<std::unique_ptr<Volume>> Volume::open(VolumeOptions options) {
  if (options.threads < 1 || options.threads > maximumThreads) {
    return Error{"INVALID_ARGUMENT", EINVAL, "threads must be 1 to " + std::to_string(maximumThreads)};
  }
  if (options.tableBlockBytes > maximumTableBlockBytes) {
    return Error{"INVALID_ARGUMENT", EINVAL, "a block of the table must not be larger than 64 MiB"};
  }
  auto backing = Backing::open({options.path, options.direct, options.readOnly});
  if (!backing) return backing.error();
  std::unique_ptr<Volume> volume(new Volume(std::move(options)));
  const VolumeOptions& kept = volume->options_;
  volume->backing_ = backing.take();
  volume->isBlockDevice_ = volume->backing_->isBlockDevice();
  volume->logicalBlockBytes_ = volume->backing_->logicalBlockBytes();
  const uint64_t available = volume->backing_->sizeBytes();
  const uint64_t size = kept.sizeBytes == 0 ? available : kept.sizeBytes;
  const bool linear = kept.tableBlockBytes == 0;
  if (size == 0) return Error{"BACKING_TOO_SMALL", 0, kept.path + " has no room for a single sector"};
  if (linear && size > available) {
    return Error{"BACKING_TOO_SMALL", 0,
                 kept.path + " has " + std::to_string(available) + " bytes, " + std::to_string(size) + " are needed"};
  }
  if (size % sectorBytes != 0 || size % volume->logicalBlockBytes_ != 0) {
    return Error{"BAD_SIZE", 0,
                 "the size must be a multiple of " + std::to_string(volume->logicalBlockBytes_) + " on " + kept.path};
  }
  if (linear) {
    volume->table_ = ExtentTable::linear(size);
  } else {
    if (kept.tableBlockBytes % volume->logicalBlockBytes_ != 0) {
      return Error{"INVALID_ARGUMENT", EINVAL, "the table's blocks are smaller than those of " + kept.path};
    }
    auto table = ExtentTable::mapped(size, kept.tableBlockBytes);
    if (!table) return table.error();
    volume->table_ = table.take();
    Volume* raw = volume.get();
    volume->faults_ = std::make_unique<FaultQueue>(*volume->table_, [raw] {
      if (raw->options_.onFaults) raw->options_.onFaults();
    });
    volume->grants_ = std::make_unique<GrantWorker>(
        kept.name, *volume->table_, *volume->backing_, volume->locks_, *volume->faults_,
        [raw](ParkedRequest& request) { raw->resume(request); });
  }
  volume->sync_ = std::make_unique<BackingSync>(*volume->backing_, kept.name);
  return volume;
}

Result<std::string> Volume::attach(const std::string& mountPoint) {
  const std::lock_guard lock(lifecycle_);
  if (closed_) return Error{"VOLUME_CLOSED", 0, options_.name + " is closed"};
  if (session_) return Error{"VOLUME_ATTACHED", EBUSY, options_.name + " is attached already"};
  auto session =
      FuseSession::start({options_.name, mountPoint, sizeBytes(), options_.readOnly, options_.threads}, *this);
  if (!session) return session.error();
  Result<LoopDevice> loop = [&]() -> Result<LoopDevice> {
    const UniqueFd file(::open(mountPoint.c_str(), (options_.readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC));
    if (!file) return Error::fromErrno("MOUNT_FAILED", "open " + mountPoint, errno);
    return LoopDevice::bind(file.get(), options_.readOnly, logicalBlockBytes_);
  }();
  if (!loop) {
    (*session)->abort();
    return loop.error();
  }
  session_ = session.take();
  loop_ = loop.take();
  return loop_->path();
}

Result<void> Volume::detach() {
  const std::lock_guard lock(lifecycle_);
  if (!session_) return {};
  if (loop_) {
    Result<bool> bound = loop_->isBound();
    if (!bound) return bound.error();
    struct stat status;
    if (*bound && stat(session_->options().mountPoint.c_str(), &status) == 0) {
      const std::string holders = describeFileHolders(status.st_dev, status.st_ino);
      if (!holders.empty()) {
        return Error{"DEVICE_BUSY", EBUSY, session_->options().mountPoint + " is " + holders};
      }
    }
    Result<void> released = loop_->release();
    if (!released) return released;
    loop_.reset();
  }
  Result<void> stopped = session_->stop();
  if (!stopped) return stopped;
  // Flushes of a connection that was lost may still be with the journal.
  gate_.drain();
  gate_.reopen();
  session_.reset();
  return {};
}

Result<void> Volume::setJournal(std::shared_ptr<Journal> journal, uint16_t index) {
  const std::lock_guard lock(lifecycle_);
  if (closed_) return Error{"VOLUME_CLOSED", 0, options_.name + " is closed"};
  if (journal && journal->payloadLimitBytes() < kFuseTransferBytes) {
    return Error{"INVALID_ARGUMENT", EINVAL, "the journal's segments are too small for writes of 1 MiB"};
  }
  gate_.drain();
  journal_ = std::move(journal);
  journalIndex_ = index;
  gate_.reopen();
  return {};
}

Result<void> Volume::syncBacking() {
  auto done = std::make_shared<std::promise<int>>();
  std::future<int> result = done->get_future();
  {
    // Not the lifecycle lock: setJournal() may hold that for as long as a full journal holds up writers.
    const std::lock_guard lock(workers_);
    if (closed_) return Error{"VOLUME_CLOSED", 0, options_.name + " is closed"};
    sync_->request([done](int errnoValue) { done->set_value(errnoValue); });
  }
  const int failed = result.get();
  if (failed != 0) return Error::fromErrno("IO_FAILED", "sync " + options_.path, failed);
  return {};
}

Result<void> Volume::close() {
  const std::lock_guard lock(lifecycle_);
  if (session_) return Error{"VOLUME_ATTACHED", EBUSY, options_.name + " is attached"};
  return closeLocked();
}

Result<void> Volume::closeLocked() {
  std::unique_ptr<GrantWorker> grants;
  std::unique_ptr<BackingSync> sync;
  {
    const std::lock_guard lock(workers_);
    if (closed_.exchange(true)) return {};
    grants = std::move(grants_);
    sync = std::move(sync_);
  }
  if (faults_) {
    std::vector<ParkedRequest*> parked;
    faults_->close(parked);
    for (ParkedRequest* request : parked) resume(*request);
  }
  grants.reset();
  sync.reset();
  journal_.reset();
  backing_.reset();
  return {};
}

bool Volume::takeFaults(std::vector<Fault>& faults) { return faults_ && faults_->takeBatch(faults); }

Result<void> Volume::grant(std::vector<Grant> grants) {
  const std::lock_guard lock(workers_);
  if (closed_) return Error{"VOLUME_CLOSED", 0, options_.name + " is closed"};
  if (!grants_) return Error{"INVALID_ARGUMENT", EINVAL, options_.name + " has no table"};
  return grants_->grant(std::move(grants));
}

Result<void> Volume::refuse(std::vector<uint64_t> blocks, int errnoValue) {
  const std::lock_guard lock(workers_);
  if (closed_) return Error{"VOLUME_CLOSED", 0, options_.name + " is closed"};
  if (!grants_) return Error{"INVALID_ARGUMENT", EINVAL, options_.name + " has no table"};
  if (errnoValue <= 0) return Error{"INVALID_ARGUMENT", EINVAL, "a refusal needs an errno"};
  return grants_->refuse(std::move(blocks), errnoValue);
}

VolumeCounters Volume::counters() const {
  VolumeCounters counters{};
  const uint64_t answered = answers_.answered.load();
  counters.reads = counts_.reads.load();
  counters.writes = counts_.writes.load();
  counters.flushes = counts_.flushes.load();
  counters.trims = counts_.trims.load();
  counters.readBytes = counts_.readBytes.load();
  counters.writtenBytes = counts_.writtenBytes.load();
  counters.faults = faults_ ? faults_->raisedCount() : 0;
  counters.inFlight = counts_.arrived.load() - answered;
  counters.errors = answers_.errors.load();
  return counters;
}

}  // namespace tidemark

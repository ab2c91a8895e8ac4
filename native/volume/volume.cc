// SPDX-License-Identifier: Apache-2.0
#include "volume.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <future>

#include "../sys/holders.h"
#include "../sys/mount_point.h"
#include "../sys/process_memory.h"

namespace tidemark {

namespace {
constexpr uint64_t sectorBytes = 512;
constexpr uint32_t maximumThreads = 16;
constexpr uint32_t maximumTableBlockBytes = 64 << 20;
/** A worker asks for one thing after the other, which the kernel may cut in two. */
constexpr uint32_t servingThreads = 2;
}  // namespace

Volume::Volume(VolumeOptions options) : options_(std::move(options)) {}

Volume::~Volume() {
  const std::lock_guard lock(lifecycle_);
  for (std::shared_ptr<FuseSession>* session : {&session_, &served_}) {
    if (*session) (*session)->abort();
    session->reset();
  }
  loop_.reset();
  (void)closeLocked();
}

Result<std::shared_ptr<Backing>> Volume::openBacking(const VolumeOptions& options) {
  if (options.pool) {
    if (options.sizeBytes == 0 || options.tableBlockBytes != options.pool->blockBytes()) {
      return Error{"INVALID_ARGUMENT", EINVAL, "a thin volume has a size, and the pool's blocks"};
    }
    return std::shared_ptr<Backing>(options.pool);
  }
  auto backing = Backing::open({options.path, options.direct, options.readOnly});
  if (!backing) return backing.error();
  return std::shared_ptr<Backing>(backing.take());
}

Result<std::unique_ptr<Volume>> Volume::open(VolumeOptions options) {
  if (options.threads < 1 || options.threads > maximumThreads) {
    return Error{"INVALID_ARGUMENT", EINVAL, "threads must be 1 to " + std::to_string(maximumThreads)};
  }
  if (options.tableBlockBytes > maximumTableBlockBytes) {
    return Error{"INVALID_ARGUMENT", EINVAL, "a block of the table must not be larger than 64 MiB"};
  }
  auto backing = openBacking(options);
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
    Result<void> made = volume->makeTable(size);
    if (!made) return made.error();
  }
  volume->sync_ = std::make_unique<BackingSync>(*volume->backing_, kept.name);
  return volume;
}

Result<void> Volume::makeTable(uint64_t sizeBytes) {
  if (options_.tableBlockBytes % logicalBlockBytes_ != 0) {
    return Error{"INVALID_ARGUMENT", EINVAL, "the table's blocks are smaller than those of " + options_.path};
  }
  auto table = ExtentTable::mapped(sizeBytes, options_.tableBlockBytes);
  if (!table) return table.error();
  table_ = table.take();
  if (options_.pool) thin_ = std::make_unique<ThinLayer>(options_.pool, options_.layer);
  faults_ = std::make_unique<FaultQueue>(*table_, thin_ ? &thin_->places : nullptr, [this] {
    if (options_.onFaults) options_.onFaults();
  });
  grants_ = std::make_unique<GrantWorker>(options_.name, *table_, *backing_, locks_, *faults_, thin_.get(),
                                          counts_.copiedBytes, [this](ParkedRequest& request) { resume(request); });
  return {};
}

FuseSessionOptions Volume::sessionOptions(const std::string& mountPoint) const {
  FuseSessionOptions given;
  given.name = options_.name;
  given.mountPoint = mountPoint;
  given.sizeBytes = sizeBytes();
  given.readOnly = options_.readOnly;
  given.threads = options_.threads;
  if (thin_) {
    // Programs use the file itself.
    given.stretchBytes = logicalBlockBytes_;
    // A part of a block gives no space back.
    given.discardBytes = table_->blockBytes();
  }
  return given;
}

Result<Attachment> Volume::attach(const std::string& mountPoint, bool readOnly) {
  readOnly = readOnly || options_.readOnly;
  const std::lock_guard lock(lifecycle_);
  if (closed_) return Error{"VOLUME_CLOSED", 0, options_.name + " is closed"};
  if (session_) return Error{"VOLUME_ATTACHED", EBUSY, options_.name + " is attached already"};
  // Whatever this volume is made of is on the heap by now.
  (void)lockProgram();
  Result<bool> taken = takeOver(mountPoint, readOnly);
  if (!taken) return taken.error();
  if (!*taken) {
    Result<void> made = bindNew(mountPoint, readOnly);
    if (!made) {
      if (session_) session_->abort();
      session_.reset();
      return made.error();
    }
  }
  return Attachment{loop_->path(), *taken, session_->keepFor(*loop_, readOnly)};
}

/** With lifecycle_ held. False: there is no device to go on with; what was there and is not the same is cleared away. */
Result<bool> Volume::takeOver(const std::string& mountPoint, bool readOnly) {
  std::optional<KeptConnection> kept = keeperClaim(kernelPath(mountPoint));
  if (!kept) return false;
  const KeptFacts facts = kept->facts;
  const bool same = facts.loop[0] != 0 && (facts.readOnly != 0) == options_.readOnly &&
                    (facts.loopReadOnly != 0) == readOnly && facts.sizeBytes <= sizeBytes();
  if (same) {
    auto session = FuseSession::takeOver(sessionOptions(mountPoint), std::move(*kept), *this);
    if (session) {
      session_ = session.take();
      loop_ = LoopDevice::bound(facts.loop, facts.loopFilesystem, facts.loopInode);
      // It asks the file, so that must be served.
      Result<bool> bound = loop_->isBound();
      if (bound && *bound) {
        // An earlier agent may have ended after the volume, or its file too, had grown and before hosts saw it. They
        // see it with the next change of the size otherwise.
        const bool asLarge = facts.sizeBytes == sizeBytes() || session_->resize(sizeBytes());
        if (asLarge) (void)loop_->followFile();
        return true;
      }
      session_->abort();
      session_.reset();
      loop_.reset();
    }
  } else {
    abortConnection(kept->connectionSwitch);
    keeperForget(facts.connection);
  }
  Result<void> released = releaseStaleMount(mountPoint);
  if (!released) return released.error();
  return false;
}

/** With lifecycle_ held. Until the device is the host's, the connection ends with this process, and leaves it free. */
Result<void> Volume::bindNew(const std::string& mountPoint, bool readOnly) {
  auto session = FuseSession::start(sessionOptions(mountPoint), *this);
  if (!session) return session.error();
  session_ = session.take();
  const UniqueFd file(::open(mountPoint.c_str(), (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC));
  if (!file) return Error::fromErrno("MOUNT_FAILED", "open " + mountPoint, errno);
  Result<LoopDevice> loop = LoopDevice::bind(file.get(), readOnly, logicalBlockBytes_);
  if (!loop) return loop.error();
  loop_ = loop.take();
  return {};
}

Result<void> Volume::serve(const std::string& mountPoint) {
  const std::lock_guard lock(lifecycle_);
  if (closed_) return Error{"VOLUME_CLOSED", 0, options_.name + " is closed"};
  if (served_) return Error{"VOLUME_ATTACHED", EBUSY, options_.name + " is served already"};
  FuseSessionOptions given = sessionOptions(mountPoint);
  given.threads = std::min(given.threads, servingThreads);
  given.takesBatches = true;
  auto session = FuseSession::start(std::move(given), *this);
  if (!session) return session.error();
  served_ = session.take();
  return {};
}

Result<void> Volume::unserve() {
  const std::lock_guard lock(lifecycle_);
  if (!served_) return {};
  Result<void> unused = refuseOpenFile(*served_);
  return unused ? stopSession(served_) : unused;
}

Result<void> Volume::detach() {
  const std::lock_guard lock(lifecycle_);
  if (!session_) return {};
  if (loop_) {
    Result<bool> bound = loop_->isBound();
    if (!bound) return bound.error();
    if (*bound) {
      Result<void> unused = refuseOpenFile(*session_);
      if (!unused) return unused;
    }
    Result<void> released = loop_->release([this] { session_->keepNoMore(); });
    if (!released) {
      (void)session_->keepFor(*loop_, session_->loopReadOnly());
      return released;
    }
    loop_.reset();
  }
  session_->keepNoMore();
  return stopSession(session_);
}

/** With lifecycle_ held. DEVICE_BUSY when a program has the mounted file open. */
Result<void> Volume::refuseOpenFile(const FuseSession& session) {
  const std::string& mountPoint = session.options().mountPoint;
  struct statx file;
  // Without asking who serves it, which is this program: killed meanwhile, it would wait for its own answer for ever.
  if (statx(AT_FDCWD, mountPoint.c_str(), AT_STATX_DONT_SYNC, STATX_INO, &file) != 0) return {};
  const std::string holders = describeFileHolders(makedev(file.stx_dev_major, file.stx_dev_minor), file.stx_ino);
  if (holders.empty()) return {};
  return Error{"DEVICE_BUSY", EBUSY, mountPoint + " is " + holders};
}

/** With lifecycle_ held. */
Result<void> Volume::stopSession(std::shared_ptr<FuseSession>& session) {
  Result<void> stopped = session->stop();
  if (!stopped) return stopped;
  // Flushes of a connection that was lost may still be with the journal.
  const std::lock_guard lock(draining_);
  drainGates();
  reopenGates();
  session.reset();
  return {};
}

/** With draining_ held. */
void Volume::drainGates() {
  gate_.drain();
  flushGate_.drain();
}

void Volume::reopenGates() {
  flushGate_.reopen();
  gate_.reopen();
}

Result<void> Volume::setJournal(std::shared_ptr<Journal> journal, uint16_t index,
                                std::shared_ptr<RegionRecord> regions) {
  const std::lock_guard lock(lifecycle_);
  if (closed_) return Error{"VOLUME_CLOSED", 0, options_.name + " is closed"};
  if (journal && journal->payloadLimitBytes() < kStretchedBytes) {
    return Error{"INVALID_ARGUMENT", EINVAL, "the journal's segments are too small for writes of 1 MiB"};
  }
  const std::lock_guard draining(draining_);
  drainGates();
  journal_ = std::move(journal);
  regions_ = std::move(regions);
  journalIndex_ = index;
  reopenGates();
  return {};
}

Result<void> Volume::resize(uint64_t sizeBytes) {
  const std::lock_guard lock(lifecycle_);
  if (closed_) return Error{"VOLUME_CLOSED", 0, options_.name + " is closed"};
  if (table_->isLinear() || options_.readOnly) {
    return Error{"INVALID_ARGUMENT", EINVAL, options_.name + " has no table, or is read-only"};
  }
  if (sizeBytes == 0 || sizeBytes % sectorBytes != 0 || sizeBytes % logicalBlockBytes_ != 0 ||
      sizeBytes > table_->capacityBytes()) {
    return Error{"BAD_SIZE", 0, "the size must be a multiple of " + std::to_string(logicalBlockBytes_) + " up to " +
                                    std::to_string(table_->capacityBytes())};
  }
  if (sizeBytes < table_->sizeBytes()) {
    // Requests that a lost connection has left may still wait for what would be cut off.
    if (session_ || served_ || faults_->parkedCount() != 0) {
      return Error{"VOLUME_ATTACHED", EBUSY, options_.name + " is attached or served"};
    }
    Result<void> discarded = discardBeyond(sizeBytes);
    if (!discarded) return discarded;
  }
  {
    // A request looks at the size more than once.
    const std::lock_guard draining(draining_);
    gate_.drain();
    table_->resize(sizeBytes);
    gate_.reopen();
  }
  Result<void> resized;
  if (served_) resized = served_->resize(sizeBytes);
  if (!resized || !session_) return resized;
  resized = session_->resize(sizeBytes);
  return resized && loop_ ? loop_->followFile() : resized;
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
  if (failed != 0) return Error::fromErrno("IO_FAILED", "sync " + (options_.path.empty() ? options_.name : options_.path), failed);
  return {};
}

Result<void> Volume::close() {
  const std::lock_guard lock(lifecycle_);
  if (session_ || served_) return Error{"VOLUME_ATTACHED", EBUSY, options_.name + " is attached or served"};
  return closeLocked();
}

/** With lifecycle_ held. */
Result<void> Volume::closeLocked() {
  const std::lock_guard draining(draining_);
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
  regions_.reset();
  backing_.reset();
  // Whoever still has this object: the pool can be closed.
  if (thin_) thin_->pool.reset();
  options_.pool.reset();
  return {};
}

bool Volume::takeFaults(std::vector<Fault>& faults) { return faults_ && faults_->takeBatch(faults); }

Result<void> Volume::grant(std::vector<Grant> grants) {
  const std::lock_guard lock(workers_);
  if (closed_) return Error{"VOLUME_CLOSED", 0, options_.name + " is closed"};
  if (!grants_) return Error{"INVALID_ARGUMENT", EINVAL, options_.name + " has no table"};
  return grants_->grant(std::move(grants));
}

Result<void> Volume::loadLeaf(uint64_t leaf, std::vector<int64_t> entries) {
  const std::lock_guard lock(workers_);
  if (closed_) return Error{"VOLUME_CLOSED", 0, options_.name + " is closed"};
  if (!grants_) return Error{"INVALID_ARGUMENT", EINVAL, options_.name + " has no table"};
  return grants_->loadLeaf(leaf, std::move(entries));
}

Result<void> Volume::refuse(std::vector<uint64_t> blocks, int errnoValue) {
  const std::lock_guard lock(workers_);
  if (closed_) return Error{"VOLUME_CLOSED", 0, options_.name + " is closed"};
  if (!grants_) return Error{"INVALID_ARGUMENT", EINVAL, options_.name + " has no table"};
  if (errnoValue <= 0) return Error{"INVALID_ARGUMENT", EINVAL, "a refusal needs an errno"};
  return grants_->refuse(std::move(blocks), errnoValue);
}

void Volume::setHoles(bool allowed) {
  if (thin_) thin_->makesHoles.store(allowed, std::memory_order_relaxed);
}

bool Volume::holdGrants() {
  const std::lock_guard lock(workers_);
  return !grants_ || grants_->hold();
}

Result<std::vector<GivenPlace>> Volume::freeze(uint32_t layer, std::span<const uint8_t> operation) {
  // Not the lifecycle lock: a detach waits for requests, those for grants, and grants are held.
  const std::lock_guard lock(draining_);
  if (closed_) return Error{"VOLUME_CLOSED", 0, options_.name + " is closed"};
  if (!thin_ || options_.readOnly) {
    return Error{"INVALID_ARGUMENT", EINVAL, options_.name + " is not thin, or read-only"};
  }
  grants_->waitIdle();
  gate_.drain();
  Result<uint64_t> appended = thin_->pool->append(operation);
  std::vector<GivenPlace> places;
  if (appended) {
    places = thin_->places.takeAll();
    table_->raiseGeneration();
    thin_->layer = layer;
  }
  gate_.reopen();
  if (!appended) return appended.error();
  return places;
}

std::vector<GivenPlace> Volume::releaseGrants(bool frozen) {
  const std::lock_guard lock(workers_);
  return grants_ ? grants_->release(frozen) : std::vector<GivenPlace>();
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
  counters.copiedBytes = counts_.copiedBytes.load();
  return counters;
}

}  // namespace tidemark

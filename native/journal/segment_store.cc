// SPDX-License-Identifier: Apache-2.0
#include "segment_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "../sys/crc32c.h"
#include "../sys/data_sync.h"
#include "../sys/process_memory.h"

namespace tidemark {
namespace {

/**
 * One page of a folio of the page cache that is stored into makes all of it dirty, and a folio is as large as the write that
 * made it: a sync of one record writes so much, and each first store into a page looks at all of it.
 */
constexpr uint64_t kWriteOutBytes = 1 << 14;
/** A busy journal keeps no more than this of what comes back, */
constexpr uint64_t kBusySpareBytes = uint64_t{1} << 30;
/** and only while its file system has so much left: it is not the only one that needs room there. */
constexpr uint64_t kAmpleBytes = 4 * kBusySpareBytes;
/** What fills a segment faster than this is busy. */
constexpr auto kBusy = std::chrono::seconds(10);
constexpr size_t kSegmentNameLength = 20;  // 16 hexadecimal digits and ".seg"

std::string segmentName(uint64_t baseLsn) {
  char name[32];
  std::snprintf(name, sizeof name, "%016" PRIx64 ".seg", baseLsn);
  return name;
}

bool parseSegmentName(const std::string& name, uint64_t& baseLsn) {
  if (name.size() != kSegmentNameLength || !name.ends_with(".seg")) return false;
  if (name.find_first_not_of("0123456789abcdef") != 16) return false;
  baseLsn = std::strtoull(name.c_str(), nullptr, 16);
  return true;
}

Error segmentError(const std::string& what, int errnoValue) {
  const bool noSpace = errnoValue == ENOSPC || errnoValue == EDQUOT;
  return Error::fromErrno(noSpace ? "JOURNAL_NO_SPACE" : "JOURNAL_SEGMENT_FAILED", what, errnoValue);
}

SegmentStore::Options withSystem(SegmentStore::Options options) {
  SegmentSystemCalls& system = options.system;
  if (!system.fdatasync) system.fdatasync = [](int fd) { return ::fdatasync(fd); };
  if (!system.allocate) {
    system.allocate = [](int fd, uint64_t bytes) { return ::fallocate(fd, 0, 0, static_cast<off_t>(bytes)); };
  }
  if (!system.roomBytes) {
    system.roomBytes = [](int fd) -> uint64_t {
      struct statvfs facts {};
      return ::fstatvfs(fd, &facts) == 0 ? uint64_t{facts.f_bavail} * facts.f_frsize : 0;
    };
  }
  if (!system.pwrite) {
    system.pwrite = [](int fd, const void* bytes, uint64_t length, uint64_t offset) -> int64_t {
      return ::pwrite(fd, bytes, length, static_cast<off_t>(offset));
    };
  }
  return options;
}

}  // namespace

SegmentStore::SegmentStore(Options options)
    : options_(withSystem(std::move(options))), limitCount_(options_.limitBytes / options_.segmentBytes) {}

SegmentStore::~SegmentStore() { close(); }

std::string SegmentStore::pathOf(const std::string& name) const { return options_.directory + "/" + name; }

uint64_t SegmentStore::fileCount() const { return named_.size() + spares_.size() + trimmed_.size(); }

uint64_t SegmentStore::segmentCount() const {
  std::lock_guard lock(mutex_);
  return fileCount();
}

Result<void> SegmentStore::syncDirectory() {
  const int failed = syncData(directory_.get());
  if (failed == 0) return {};
  return segmentError("sync of folder " + options_.directory, failed);
}

Result<MappedSegment*> SegmentStore::open(uint64_t startLsn) {
  directory_.reset(::open(options_.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory_) return segmentError("open folder " + options_.directory, errno);
  const uint64_t startBase = startLsn - startLsn % options_.segmentBytes;
  if (auto scanned = scan(startBase); !scanned) return scanned.error();

  std::unique_ptr<MappedSegment> segment;
  if (named_.contains(startBase)) {
    const std::string name = segmentName(startBase);
    if (auto checked = checkHeader(name, startBase); !checked) return checked.error();
    UniqueFd fd(::openat(directory_.get(), name.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    if (!fd) return segmentError("open segment " + name, errno);
    auto mapped = map(startBase, std::move(fd), 0);
    if (!mapped) return mapped.error();
    segment = mapped.take();
  } else if (startLsn - startBase > kSegmentHeaderBytes) {
    std::string spare;
    if (!spares_.empty()) {
      spare = spares_.back();
      spares_.pop_back();
    }
    auto prepared = prepare(startBase, spare);
    if (!prepared) return prepared.error();
    segment = prepared.take();
    named_.insert(startBase);
  }
  MappedSegment* open = segment.get();
  nextBase_ = startBase;
  if (open != nullptr) {
    live_.push_back(std::move(segment));
    nextBase_ += options_.segmentBytes;
  }
  preparer_ = std::thread([this] {
    protectThread();
    prepareLoop();
  });
  return open;
}

/**
 * What an earlier run left: segments up to the start stay, prepared or torn ones beyond it become spares (nothing in
 * them may ever be read: the journal ends at the start), half-made files go.
 */
Result<void> SegmentStore::scan(uint64_t startBase) {
  const int fd = ::openat(directory_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* stream = fd < 0 ? nullptr : ::fdopendir(fd);
  if (stream == nullptr) return segmentError("list folder " + options_.directory, errno);
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(stream)) names.emplace_back(entry->d_name);
  ::closedir(stream);
  std::sort(names.begin(), names.end());

  std::vector<uint64_t> beyond;
  for (const std::string& name : names) {
    uint64_t base = 0;
    if (name.starts_with("spare-") && name.ends_with(".seg")) {
      spareNumber_ = std::max<uint64_t>(spareNumber_, std::strtoull(name.c_str() + 6, nullptr, 10) + 1);
      struct stat status {};
      const bool usable = ::fstatat(directory_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
                          S_ISREG(status.st_mode) && static_cast<uint64_t>(status.st_size) == options_.segmentBytes;
      // However many: to remove them takes time, which nobody has who opens.
      if (usable) {
        spares_.push_back(name);
      } else {
        ::unlinkat(directory_.get(), name.c_str(), 0);
      }
    } else if (name == "new.tmp") {
      ::unlinkat(directory_.get(), name.c_str(), 0);
    } else if (parseSegmentName(name, base)) {
      if (base % options_.segmentBytes != 0) {
        return Error{"FOREIGN_SEGMENT", 0, "segment " + name + " does not begin on a multiple of the segment size"};
      }
      if (base <= startBase) {
        named_.insert(base);
      } else {
        beyond.push_back(base);
      }
    }
  }
  for (const uint64_t base : beyond) {
    const std::string name = segmentName(base);
    if (auto checked = checkHeader(name, base); !checked) return checked.error();
    if (std::string spare = setAside(name); !spare.empty()) spares_.push_back(std::move(spare));
  }
  return beyond.empty() ? Result<void>() : syncDirectory();
}

/** As many as were needed from one trim to the next: a segment that is made is written twice. Under mutex_. */
uint64_t SegmentStore::wantedSpares(bool hasRoom) const {
  const uint64_t least = options_.spareSegments;
  if (!busy_ || !hasRoom) return least;
  return std::max(least, std::min(takenBetweenTrims_, kBusySpareBytes / options_.segmentBytes));
}

/** Make a segment file a spare, or remove it when there are enough: its new name, or nothing. */
std::string SegmentStore::setAside(const std::string& name) {
  const bool hasRoom = options_.system.roomBytes(directory_.get()) >= kAmpleBytes;
  bool keep = false;
  std::string spare;
  {
    std::lock_guard lock(mutex_);
    keep = busy_ ? spares_.size() < wantedSpares(hasRoom) : spares_.size() + ready_.size() < 1;
    spare = "spare-" + std::to_string(spareNumber_++) + ".seg";
  }
  if (keep && ::renameat(directory_.get(), name.c_str(), directory_.get(), spare.c_str()) == 0) return spare;
  ::unlinkat(directory_.get(), name.c_str(), 0);
  return {};
}

Result<void> SegmentStore::checkHeader(const std::string& name, uint64_t baseLsn) {
  UniqueFd fd(::openat(directory_.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return segmentError("open segment " + name, errno);
  struct stat status {};
  SegmentHeader header{};
  if (::fstat(fd.get(), &status) != 0 || ::pread(fd.get(), &header, sizeof header, 0) < 0) {
    return segmentError("read segment " + name, errno);
  }
  const bool sound = static_cast<uint64_t>(status.st_size) == options_.segmentBytes &&
                     header.magic == kSegmentMagic && header.crc == crc32c(&header, offsetof(SegmentHeader, crc));
  if (!sound) return Error{"JOURNAL_DAMAGED", 0, "segment " + name + " has no valid header or another length"};
  if (header.version != kSegmentVersion || header.headerLength != kSegmentHeaderBytes || header.baseLsn != baseLsn ||
      header.journalId != options_.journalId || header.segmentBytes != options_.segmentBytes) {
    return Error{"FOREIGN_SEGMENT", 0, "segment " + name + " belongs to another journal, place or version"};
  }
  return {};
}

Result<void> SegmentStore::writeAll(int fd, const void* bytes, uint64_t length, uint64_t offset) {
  const auto* from = static_cast<const uint8_t*>(bytes);
  while (length > 0) {
    const int64_t written = options_.system.pwrite(fd, from, length, offset);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return segmentError("write a segment in " + options_.directory, written == 0 ? EIO : errno);
    from += written;
    offset += static_cast<uint64_t>(written);
    length -= static_cast<uint64_t>(written);
  }
  return {};
}

Result<void> SegmentStore::writeHeader(int fd, uint64_t baseLsn) {
  // And the first record's place, which in a spare may hold one of these very addresses.
  alignas(64) uint8_t page[kSegmentHeaderBytes + kRecordHeaderBytes] = {};
  SegmentHeader header{};
  header.magic = kSegmentMagic;
  header.version = kSegmentVersion;
  header.headerLength = kSegmentHeaderBytes;
  header.baseLsn = baseLsn;
  header.journalId = options_.journalId;
  header.segmentBytes = options_.segmentBytes;
  header.writerVersion = kWriterVersion;
  header.crc = crc32c(&header, offsetof(SegmentHeader, crc));
  std::memcpy(page, &header, sizeof header);
  return writeAll(fd, page, sizeof page, 0);
}

/**
 * A segment ready for appending. The steps, and what another order loses:
 *  1. a new file is allocated and written out once: without it a later store could fail for want of space (SIGBUS) and
 *     every sync would write extent metadata too
 *  2. the header is written, 3. fdatasync, 4. rename to the final name: a file with a segment's name always has its
 *     header, also after a power cut
 *  5. sync of the folder, before the first record: without it a durable record could lie in a file with no name
 */
Result<std::unique_ptr<MappedSegment>> SegmentStore::prepare(uint64_t baseLsn, const std::string& spare) {
  const bool fresh = spare.empty();
  const std::string from = fresh ? "new.tmp" : spare;
  const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | (fresh ? O_CREAT | O_EXCL : 0);
  UniqueFd fd(::openat(directory_.get(), from.c_str(), flags, 0600));
  if (!fd) return segmentError("open " + pathOf(from), errno);

  const auto work = [&]() -> Result<void> {
    if (fresh) {
      if (options_.system.allocate(fd.get(), options_.segmentBytes) != 0 && errno != EOPNOTSUPP) {
        return segmentError("allocate " + pathOf(from), errno);
      }
      const std::vector<uint8_t> zeros(kWriteOutBytes);
      for (uint64_t at = 0; at < options_.segmentBytes; at += kWriteOutBytes) {
        if (auto written = writeAll(fd.get(), zeros.data(), kWriteOutBytes, at); !written) return written;
      }
    }
    if (auto written = writeHeader(fd.get(), baseLsn); !written) return written;
    if (options_.system.fdatasync(fd.get()) != 0) return segmentError("sync " + pathOf(from), errno);
    const std::string name = segmentName(baseLsn);
    if (::renameat(directory_.get(), from.c_str(), directory_.get(), name.c_str()) != 0) {
      return segmentError("rename to " + pathOf(name), errno);
    }
    return syncDirectory();
  };
  if (auto worked = work(); !worked) {
    // A file that failed to be written or synced is never used again.
    ::unlinkat(directory_.get(), from.c_str(), 0);
    return worked.error();
  }
  return map(baseLsn, std::move(fd), MAP_POPULATE);
}

/**
 * @param populate MAP_POPULATE where the file was just written; one that lies on the disk is read as it is needed: a place
 * of it that cannot be read breaks the segment then
 */
Result<std::unique_ptr<MappedSegment>> SegmentStore::map(uint64_t baseLsn, UniqueFd fd, int populate) {
  auto mapped = SharedMapping::map(fd.get(), options_.segmentBytes, populate);
  if (!mapped) return segmentError("map segment " + segmentName(baseLsn), mapped.error().errnoValue);
  return std::make_unique<MappedSegment>(baseLsn, std::move(fd), mapped.take());
}

MappedSegment* SegmentStore::next() {
  std::unique_lock lock(mutex_);
  if (ready_.empty() && !stopWaiting_ && !refuseWaiting_) {
    waiting_ = true;
    backOff_ = false;
    work_.notify_one();
    made_.wait(lock, [this] { return !ready_.empty() || stopWaiting_ || refuseWaiting_; });
    waiting_ = false;
  }
  if (stopWaiting_ || ready_.empty()) {
    // Who asks again later may find one.
    ahead_.store(true, std::memory_order_relaxed);
    work_.notify_one();
    return nullptr;
  }
  const auto now = std::chrono::steady_clock::now();
  busy_ = !live_.empty() && now - takenAt_ < kBusy;
  takenAt_ = now;
  takenSinceTrim_ += 1;
  ahead_.store(false, std::memory_order_relaxed);
  live_.push_back(std::move(ready_.front()));
  ready_.pop_front();
  work_.notify_one();
  return live_.back().get();
}

void SegmentStore::refuseWaiting(bool refuse) {
  {
    std::lock_guard lock(mutex_);
    refuseWaiting_ = refuse;
    if (!refuse) fullRaised_ = false;
  }
  made_.notify_all();
  work_.notify_one();
}

void SegmentStore::stopWaiting() {
  {
    std::lock_guard lock(mutex_);
    stopWaiting_ = true;
  }
  made_.notify_all();
}

Result<void> SegmentStore::sync(uint64_t fromLsn, uint64_t toLsn) {
  // They stay: only retire() and close() end them, on this thread or after it.
  std::vector<const MappedSegment*> touched;
  {
    std::lock_guard lock(mutex_);
    for (const auto& segment : live_) {
      const bool overlaps = segment->baseLsn < toLsn && segment->baseLsn + options_.segmentBytes > fromLsn;
      if (overlaps) touched.push_back(segment.get());
    }
  }
  for (const MappedSegment* segment : touched) {
    const uint64_t end = segment->baseLsn + options_.segmentBytes;
    segment->mapping->release(std::max(fromLsn, segment->baseLsn) - segment->baseLsn,
                              std::min(toLsn, end) - segment->baseLsn);
    if (!segment->isBroken() && options_.system.fdatasync(segment->fd.get()) != 0) {
      return Error::fromErrno("JOURNAL_SYNC_FAILED", "sync of " + pathOf(segmentName(segment->baseLsn)), errno);
    }
    // It knows nothing of what did not reach the file's pages.
    if (segment->isBroken()) return brokenError(*segment);
  }
  return {};
}

Error SegmentStore::brokenError(const MappedSegment& segment) const {
  return segmentError("store into " + pathOf(segmentName(segment.baseLsn)), EIO);
}

void SegmentStore::retire(uint64_t belowLsn) {
  for (;;) {
    std::unique_ptr<MappedSegment> segment;
    {
      std::lock_guard lock(mutex_);
      // The last one is open, even when it is full: the appender still refers to it.
      if (live_.size() < 2 || live_.front()->baseLsn + options_.segmentBytes > belowLsn) return;
      segment = std::move(live_.front());
      live_.pop_front();
    }
  }
}

void SegmentStore::trim(uint64_t belowLsn) {
  {
    std::lock_guard lock(mutex_);
    const uint64_t openBase = live_.empty() ? nextBase_ : live_.back()->baseLsn;
    while (!named_.empty() && *named_.begin() + options_.segmentBytes <= belowLsn && *named_.begin() < openBase) {
      trimmed_.push_back(*named_.begin());
      named_.erase(named_.begin());
    }
    if (trimmed_.empty()) return;
    takenBetweenTrims_ = std::exchange(takenSinceTrim_, 0);
    backOff_ = false;
  }
  work_.notify_one();
}

void SegmentStore::askAhead() {
  {
    std::lock_guard lock(mutex_);
    ahead_.store(true, std::memory_order_relaxed);
  }
  work_.notify_one();
}

/** Under mutex_. */
uint32_t SegmentStore::wantedReady() const {
  if (busy_) return options_.spareSegments;
  return waiting_ || ahead_.load(std::memory_order_relaxed) ? 1 : 0;
}

/**
 * Nobody took a segment for a while: what is more than the next one is given back. A segment that was prepared holds
 * nothing, so its name may come back with a power cut; the one that is made in its place has it again.
 */
void SegmentStore::giveBack(std::unique_lock<std::mutex>& lock) {
  std::vector<std::string> names;
  std::vector<std::unique_ptr<MappedSegment>> unused;
  while (!spares_.empty() && ready_.size() + spares_.size() > wantedReady()) {
    names.push_back(std::move(spares_.back()));
    spares_.pop_back();
  }
  while (ready_.size() > wantedReady()) {
    nextBase_ = ready_.back()->baseLsn;
    names.push_back(segmentName(nextBase_));
    unused.push_back(std::move(ready_.back()));
    ready_.pop_back();
  }
  lock.unlock();
  unused.clear();
  for (const std::string& name : names) ::unlinkat(directory_.get(), name.c_str(), 0);
  lock.lock();
  named_.erase(named_.lower_bound(nextBase_), named_.end());
}

void SegmentStore::prepareLoop() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (!trimmed_.empty()) {
      const uint64_t base = trimmed_.back();
      lock.unlock();
      std::string spare = setAside(segmentName(base));
      lock.lock();
      std::erase(trimmed_, base);
      if (!spare.empty()) spares_.push_back(std::move(spare));
      continue;
    }
    const bool wanted = ready_.size() < wantedReady() && !failed_ && !backOff_ && !stopWaiting_;
    if (wanted && (!spares_.empty() || fileCount() < limitCount_)) {
      const bool writerWaited = waiting_;
      std::string spare;
      if (!spares_.empty()) {
        spare = std::move(spares_.back());
        spares_.pop_back();
      }
      const uint64_t base = nextBase_;
      named_.insert(base);
      lock.unlock();
      auto prepared = prepare(base, spare);
      lock.lock();
      if (prepared) {
        ready_.push_back(prepared.take());
        nextBase_ += options_.segmentBytes;
        fullRaised_ = false;
        made_.notify_all();
        continue;
      }
      named_.erase(base);
      if (writerWaited) {
        failed_ = true;
        lock.unlock();
        options_.onFailed(prepared.error());
        lock.lock();
      } else {
        backOff_ = !waiting_;
      }
      continue;
    }
    if (wanted && waiting_ && ready_.empty() && !fullRaised_) {
      fullRaised_ = true;
      lock.unlock();
      options_.onFull();
      lock.lock();
      continue;
    }
    if (!busy_ && spares_.size() > options_.spareSegments) {
      const std::string name = std::move(spares_.back());
      spares_.pop_back();
      lock.unlock();
      ::unlinkat(directory_.get(), name.c_str(), 0);
      lock.lock();
      continue;
    }
    if (busy_ || ready_.size() + spares_.size() > wantedReady()) {
      if (work_.wait_until(lock, takenAt_ + options_.idle) == std::cv_status::no_timeout || stop_ || !trimmed_.empty()) continue;
      if (std::exchange(busy_, false) && spares_.size() > options_.spareSegments) continue;
      giveBack(lock);
    } else {
      work_.wait(lock);
    }
  }
}

void SegmentStore::close() {
  stopWaiting();
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  if (preparer_.joinable()) preparer_.join();
  std::lock_guard lock(mutex_);
  ready_.clear();
  live_.clear();
  directory_.reset();
}

}  // namespace tidemark

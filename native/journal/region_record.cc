// SPDX-License-Identifier: Apache-2.0
#include "region_record.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "../sys/crc32c.h"

namespace tidemark {
namespace {

/** A region behind one that is set brings so many along: who writes from one end to the other does not wait for each. */
constexpr uint64_t kAheadRegions = 15;
constexpr uint64_t kWordBits = 64;

/** The bits of a word that lie in the range. */
uint64_t maskOf(uint64_t word, uint64_t first, uint64_t last) {
  uint64_t mask = ~uint64_t{0};
  if (first / kWordBits == word) mask &= ~uint64_t{0} << (first % kWordBits);
  if (last / kWordBits == word) mask &= ~uint64_t{0} >> (kWordBits - 1 - last % kWordBits);
  return mask;
}

void fullFence() {
#ifdef __SANITIZE_THREAD__
  // The sanitizer does not know fences.
  static std::atomic<int> fence{0};
  fence.fetch_add(1, std::memory_order_seq_cst);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

Error unwritable(const std::string& what, int errnoValue) {
  return Error::fromErrno("REGIONS_UNWRITABLE", what, errnoValue);
}

}  // namespace

RegionRecord::RegionRecord(RegionRecordOptions options)
    : options_(std::move(options)), crcSeed_(crc32c(options_.recordId.data(), options_.recordId.size())) {
  uint64_t next = 0;
  for (const uint64_t bytes : options_.volumeBytes) {
    firstRegion_.push_back(next);
    const uint64_t regions = (bytes + options_.regionBytes - 1) / options_.regionBytes;
    next += (regions + kWordBits - 1) / kWordBits * kWordBits;
  }
  firstRegion_.push_back(next);
  wordCount_ = next / kWordBits;
  pageCount_ = (wordCount_ + kRegionPageWords - 1) / kRegionPageWords;
  durable_ = std::vector<std::atomic<uint64_t>>(wordCount_);
  used_ = std::vector<std::atomic<uint64_t>>(wordCount_);
  current_.resize(wordCount_);
  previous_.resize(wordCount_);
  isDirty_.resize(2 * pageCount_);
}

Result<std::unique_ptr<RegionRecord>> RegionRecord::open(RegionRecordOptions options) {
  const bool powerOfTwo = std::has_single_bit(options.regionBytes);
  if (!powerOfTwo || options.regionBytes < 4096 || options.volumeBytes.empty()) {
    return Error{"INVALID_ARGUMENT", EINVAL, "regions are a power of two from 4 KiB on, and there are volumes"};
  }
  if (!options.fdatasync) options.fdatasync = [](int fd) { return ::fdatasync(fd); };
  std::unique_ptr<RegionRecord> record(new RegionRecord(std::move(options)));
  if (auto loaded = record->load(); !loaded) return loaded.error();
  return record;
}

Result<void> RegionRecord::load() {
  const std::string& path = options_.path;
  file_.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!file_) return Error::fromErrno("REGIONS_UNREADABLE", "open " + path, errno);
  RegionHeader header{};
  const auto read = [this](void* into, size_t length, uint64_t offset) {
    return ::pread(file_.get(), into, length, static_cast<off_t>(offset)) == static_cast<ssize_t>(length);
  };
  if (!read(&header, sizeof header, 0)) return Error::fromErrno("REGIONS_UNREADABLE", "read " + path, errno);
  const bool sound = header.magic == kRegionMagic && header.version == kRegionVersion &&
                     header.headerLength == kRegionHeaderBytes &&
                     header.crc == crc32c(&header, offsetof(RegionHeader, crc)) &&
                     header.regionBytes == options_.regionBytes &&
                     header.regionCount == wordCount_ * kWordBits &&
                     std::memcmp(header.recordId, options_.recordId.data(), sizeof header.recordId) == 0;
  if (!sound) return Error{"REGIONS_DAMAGED", 0, path + " has no valid header, or is of another stream"};
  for (uint64_t number = 0; number < 2 * pageCount_; number++) {
    RegionPage page;
    const bool whole = read(&page, sizeof page, kRegionHeaderBytes + number * kRegionPageBytes) &&
                       page.number == number &&
                       page.crc == crc32c(&page.number, sizeof page - sizeof page.crc, crcSeed_);
    std::vector<uint64_t>& map = number < pageCount_ ? current_ : previous_;
    const uint64_t from = number % pageCount_ * kRegionPageWords;
    for (uint64_t at = 0; at < kRegionPageWords && from + at < wordCount_; at++) {
      map[from + at] = whole ? page.words[at] : ~uint64_t{0};
    }
    if (!whole) dirty(number);
  }
  for (uint64_t word = 0; word < wordCount_; word++) {
    const bool onDisk = !isDirty_[word / kRegionPageWords];
    if (onDisk) durable_[word].store(current_[word], std::memory_order_relaxed);
    currentCount_ += static_cast<uint64_t>(std::popcount(current_[word]));
  }
  return {};
}

RegionRecord::Range RegionRecord::rangeOf(uint16_t volume, uint64_t offset, uint64_t length) const {
  assert(volume + 1U < firstRegion_.size() && length > 0);
  const uint64_t first = firstRegion_[volume] + offset / options_.regionBytes;
  const uint64_t last = firstRegion_[volume] + (offset + length - 1) / options_.regionBytes;
  assert(last < firstRegion_[volume + 1U]);
  return {first, last};
}

void RegionRecord::touch(uint16_t volume, uint64_t offset, uint64_t length) {
  if (length == 0) return;
  const Range range = rangeOf(volume, offset, length);
  // With the one in rotate(): either this sees the bit cleared, or whoever asks for the journal's end after the
  // rotation sees the place that was given to this write.
  fullFence();
  if (!covered(range)) touchSlowly(volume, range);
}

bool RegionRecord::covered(const Range& range) {
  bool all = true;
  for (uint64_t word = range.first / kWordBits; word <= range.last / kWordBits; word++) {
    const uint64_t mask = maskOf(word, range.first, range.last);
    if ((used_[word].load(std::memory_order_relaxed) & mask) != mask) {
      used_[word].fetch_or(mask, std::memory_order_relaxed);
    }
    if ((durable_[word].load(std::memory_order_acquire) & mask) != mask) all = false;
  }
  return all || givenUp_.load(std::memory_order_acquire);
}

void RegionRecord::touchSlowly(uint16_t volume, Range range) {
  bool overLimit = false;
  {
    std::unique_lock lock(mutex_);
    // A rotation may empty the map before this has seen its bits in it: they are set again then.
    while (!covered(range)) {
      if (mark(range)) markAhead(volume, range);
      if (!limitRaised_ && options_.limitRegions != 0 && currentCount_ >= options_.limitRegions) {
        limitRaised_ = true;
        overLimit = true;
      }
      if (busy_ || failed_) {
        changed_.wait(lock);
        continue;
      }
      busy_ = true;
      if (!writeDirty(lock, true)) continue;
      busy_ = false;
      changed_.notify_all();
    }
  }
  if (overLimit && options_.onEvent) options_.onEvent(RegionEvent{RegionEvent::Kind::kLimit, {}});
}

/** With the lock held. @return whether any was not in the map */
bool RegionRecord::mark(Range range) {
  bool any = false;
  for (uint64_t word = range.first / kWordBits; word <= range.last / kWordBits; word++) {
    const uint64_t fresh = maskOf(word, range.first, range.last) & ~current_[word];
    if (fresh == 0) continue;
    current_[word] |= fresh;
    currentCount_ += static_cast<uint64_t>(std::popcount(fresh));
    dirty(word / kRegionPageWords);
    any = true;
  }
  return any;
}

void RegionRecord::markAhead(uint16_t volume, const Range& range) {
  if (range.first == firstRegion_[volume]) return;
  const uint64_t before = range.first - 1;
  if ((current_[before / kWordBits] >> (before % kWordBits) & 1) == 0) return;
  const uint64_t regions = (options_.volumeBytes[volume] + options_.regionBytes - 1) / options_.regionBytes;
  const uint64_t end = firstRegion_[volume] + regions - 1;
  mark({range.first, std::min(range.last + kAheadRegions, end)});
}

void RegionRecord::dirty(uint64_t page) {
  if (isDirty_[page]) return;
  isDirty_[page] = true;
  dirty_.push_back(page);
}

/** With the lock held. */
std::vector<RegionRecord::Page> RegionRecord::takeDirty() {
  std::vector<Page> pages(dirty_.size());
  for (size_t at = 0; at < pages.size(); at++) {
    Page& page = pages[at];
    page.number = dirty_[at];
    page.bytes = RegionPage{};
    page.bytes.number = static_cast<uint32_t>(page.number);
    const std::vector<uint64_t>& map = page.number < pageCount_ ? current_ : previous_;
    const uint64_t from = page.number % pageCount_ * kRegionPageWords;
    const uint64_t count = std::min(kRegionPageWords, wordCount_ - from);
    std::copy_n(map.begin() + static_cast<ptrdiff_t>(from), count, page.bytes.words);
    page.bytes.crc = crc32c(&page.bytes.number, sizeof page.bytes - sizeof page.bytes.crc, crcSeed_);
    isDirty_[page.number] = false;
  }
  dirty_.clear();
  return pages;
}

/**
 * By whoever has the turn; the lock is let go of meanwhile. With `sync` the current map's bits count as durable after it.
 * A failure ends the turn, and all others.
 */
Result<void> RegionRecord::writeDirty(std::unique_lock<std::mutex>& lock, bool sync) {
  const std::vector<Page> pages = takeDirty();
  lock.unlock();
  Result<void> written;
  for (const Page& page : pages) {
    const uint64_t offset = kRegionHeaderBytes + page.number * kRegionPageBytes;
    const ssize_t bytes = ::pwrite(file_.get(), &page.bytes, sizeof page.bytes, static_cast<off_t>(offset));
    if (bytes == static_cast<ssize_t>(sizeof page.bytes)) continue;
    written = unwritable("write " + options_.path, bytes < 0 ? errno : EIO);
    break;
  }
  if (written && sync && options_.fdatasync(file_.get()) != 0) {
    written = unwritable("sync " + options_.path, errno);
  }
  lock.lock();
  if (!written) {
    busy_ = false;
    fail(lock, written.error());
    return written;
  }
  if (sync) syncs_++;
  for (const Page& page : pages) {
    if (page.number >= pageCount_) continue;
    const uint64_t from = page.number * kRegionPageWords;
    for (uint64_t at = 0; at < kRegionPageWords && from + at < wordCount_; at++) {
      if (sync) {
        durable_[from + at].fetch_or(page.bytes.words[at], std::memory_order_release);
      } else if (current_[from + at] != durable_[from + at].load(std::memory_order_relaxed)) {
        // Somebody waits for a bit in it to be synced.
        dirty(page.number);
      }
    }
  }
  return {};
}

/** With the lock held; let go of for the event. Nothing is tried again. */
void RegionRecord::fail(std::unique_lock<std::mutex>& lock, Error error) {
  if (failed_) return;
  failed_ = true;
  changed_.notify_all();
  lock.unlock();
  if (options_.onEvent) options_.onEvent(RegionEvent{RegionEvent::Kind::kFailed, std::move(error)});
  lock.lock();
}

Result<void> RegionRecord::takeTurn(std::unique_lock<std::mutex>& lock) {
  changed_.wait(lock, [this] { return !busy_ || failed_ || givenUp_; });
  if (failed_ || givenUp_) return unwritable("the region record " + options_.path + " was given up", EIO);
  busy_ = true;
  return {};
}

/**
 * Steps: (1) what is durable in the current map is durable in the previous one, (2) the current one is emptied. In the
 * other order a power cut between them forgets regions.
 */
Result<void> RegionRecord::rotate(bool carry) {
  std::unique_lock lock(mutex_);
  if (auto turn = takeTurn(lock); !turn) return turn;
  std::vector<uint64_t> moved(wordCount_);
  for (uint64_t word = 0; word < wordCount_; word++) {
    moved[word] = durable_[word].load(std::memory_order_relaxed);
    if ((moved[word] & ~previous_[word]) != 0) dirty(pageCount_ + word / kRegionPageWords);
    previous_[word] |= moved[word];
  }
  if (auto written = writeDirty(lock, true); !written) return written;
  currentCount_ = 0;
  for (uint64_t word = 0; word < wordCount_; word++) {
    const uint64_t used = used_[word].exchange(0, std::memory_order_relaxed);
    const uint64_t cleared = moved[word] & ~(carry ? used : 0);
    if (cleared != 0) {
      durable_[word].fetch_and(~cleared, std::memory_order_seq_cst);
      current_[word] &= ~cleared;
      dirty(word / kRegionPageWords);
    }
    currentCount_ += static_cast<uint64_t>(std::popcount(current_[word]));
  }
  fullFence();
  limitRaised_ = false;
  return endTurn(lock);
}

Result<void> RegionRecord::drop() {
  std::unique_lock lock(mutex_);
  if (auto turn = takeTurn(lock); !turn) return turn;
  for (uint64_t word = 0; word < wordCount_; word++) {
    if (previous_[word] == 0) continue;
    previous_[word] = 0;
    dirty(pageCount_ + word / kRegionPageWords);
  }
  return endTurn(lock);
}

/** What was cleared is written, not synced: after a power cut it may stand there again. */
Result<void> RegionRecord::endTurn(std::unique_lock<std::mutex>& lock) {
  if (auto written = writeDirty(lock, false); !written) return written;
  busy_ = false;
  changed_.notify_all();
  return {};
}

void RegionRecord::giveUp() {
  {
    const std::lock_guard lock(mutex_);
    givenUp_.store(true, std::memory_order_release);
  }
  changed_.notify_all();
}

std::vector<uint64_t> RegionRecord::active() const {
  const std::lock_guard lock(mutex_);
  std::vector<uint64_t> words(wordCount_);
  for (uint64_t word = 0; word < wordCount_; word++) words[word] = current_[word] | previous_[word];
  return words;
}

RegionCounters RegionRecord::counters() const {
  const std::lock_guard lock(mutex_);
  RegionCounters counters;
  for (uint64_t word = 0; word < wordCount_; word++) {
    counters.previous += static_cast<uint64_t>(std::popcount(previous_[word]));
    counters.active += static_cast<uint64_t>(std::popcount(current_[word] | previous_[word]));
  }
  counters.current = currentCount_;
  counters.syncs = syncs_;
  return counters;
}

}  // namespace tidemark

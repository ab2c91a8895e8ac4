// SPDX-License-Identifier: Apache-2.0
#include "../../native/journal/region_record.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <random>
#include <set>
#include <thread>

#include "../../native/sys/crc32c.h"
#include "check.h"

using namespace tidemark;
using test::eventually;

namespace {

constexpr uint64_t kRegion = 1 << 20;
constexpr std::array<uint8_t, 16> kId = {9, 8, 7, 6, 5, 4, 3, 2, 1};

uint64_t wordsOf(const std::vector<uint64_t>& volumeBytes) {
  uint64_t words = 0;
  for (const uint64_t bytes : volumeBytes) words += ((bytes + kRegion - 1) / kRegion + 63) / 64;
  return words;
}

/** An empty record, as src/journal/region-file.ts makes one. */
std::string makeFile(const test::TemporaryFolder& folder, const std::vector<uint64_t>& volumeBytes) {
  const std::string path = folder.path() + "/regions";
  std::vector<uint8_t> header(kRegionHeaderBytes);
  RegionHeader fields{};
  fields.magic = kRegionMagic;
  fields.version = kRegionVersion;
  fields.headerLength = kRegionHeaderBytes;
  std::copy(kId.begin(), kId.end(), fields.recordId);
  fields.regionBytes = kRegion;
  fields.regionCount = wordsOf(volumeBytes) * 64;
  fields.crc = crc32c(&fields, offsetof(RegionHeader, crc));
  std::memcpy(header.data(), &fields, sizeof fields);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(header.data()), static_cast<std::streamsize>(header.size()));
  const uint64_t pages = 2 * ((wordsOf(volumeBytes) + kRegionPageWords - 1) / kRegionPageWords);
  for (uint64_t number = 0; number < pages; number++) {
    RegionPage page{};
    page.number = static_cast<uint32_t>(number);
    page.crc = crc32c(&page.number, sizeof page - sizeof page.crc, crc32c(kId.data(), kId.size()));
    file.write(reinterpret_cast<const char*>(&page), sizeof page);
  }
  return path;
}

RegionRecordOptions optionsFor(const std::string& path, const std::vector<uint64_t>& volumeBytes) {
  RegionRecordOptions options;
  options.path = path;
  options.recordId = kId;
  options.regionBytes = kRegion;
  options.volumeBytes = volumeBytes;
  return options;
}

std::unique_ptr<RegionRecord> mustOpen(RegionRecordOptions options) {
  auto opened = RegionRecord::open(std::move(options));
  if (!opened) std::printf("open: %s %s\n", opened.error().code.c_str(), opened.error().message.c_str());
  CHECK(opened.ok());
  return opened.take();
}

bool has(const std::vector<uint64_t>& words, uint64_t region) { return (words[region / 64] >> (region % 64) & 1) != 0; }

/** What whoever opens the file now would find. */
std::vector<uint64_t> onDisk(const std::string& path, const std::vector<uint64_t>& volumeBytes) {
  return mustOpen(optionsFor(path, volumeBytes))->active();
}

}  // namespace

TEST("a region is synced before touch() returns, and asked for once") {
  test::TemporaryFolder folder;
  const std::vector<uint64_t> sizes = {100 * kRegion, 3 * kRegion + 512};
  const std::string path = makeFile(folder, sizes);
  std::atomic<int> begun{0};
  std::atomic<bool> mayEnd{false};
  auto options = optionsFor(path, sizes);
  options.fdatasync = [&](int fd) {
    ++begun;
    while (!mayEnd) std::this_thread::yield();
    return ::fdatasync(fd);
  };
  auto record = mustOpen(options);
  std::atomic<bool> returned{false};
  std::thread writer([&] {
    record->touch(1, 3 * kRegion, 512);
    returned = true;
  });
  CHECK(eventually([&] { return begun == 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(!returned);
  CHECK(has(onDisk(path, sizes), 128 + 3));
  mayEnd = true;
  writer.join();
  record->touch(1, 3 * kRegion, 512);
  CHECK(begun == 1);
  record->touch(0, 0, 2 * kRegion);
  CHECK(begun == 2);
  const auto disk = onDisk(path, sizes);
  CHECK(has(disk, 0) && has(disk, 1) && !has(disk, 2) && !has(disk, 128));
  CHECK(record->counters().active == 3);
}

TEST("a range over many words and pages is set as a whole, and no further") {
  test::TemporaryFolder folder;
  const std::vector<uint64_t> sizes = {10'000 * kRegion};
  const std::string path = makeFile(folder, sizes);
  auto record = mustOpen(optionsFor(path, sizes));
  record->touch(0, 70 * kRegion, 9000 * kRegion);
  const auto disk = onDisk(path, sizes);
  bool whole = true;
  for (uint64_t region = 70; region < 9070; region++) whole = whole && has(disk, region);
  CHECK(whole && !has(disk, 69) && !has(disk, 9070));
  CHECK(record->counters().syncs == 1);
}

TEST("who writes from one end to the other waits for one sync in sixteen regions") {
  test::TemporaryFolder folder;
  const std::vector<uint64_t> sizes = {1600 * kRegion};
  auto record = mustOpen(optionsFor(makeFile(folder, sizes), sizes));
  for (uint64_t at = 0; at < 1600 * kRegion; at += kRegion / 2) record->touch(0, at, kRegion / 2);
  CHECK(record->counters().syncs <= 102);
  CHECK(record->counters().active == 1600);
}

TEST("writers that come while a sync runs share the next one") {
  test::TemporaryFolder folder;
  const std::vector<uint64_t> sizes = {4096 * kRegion};
  const std::string path = makeFile(folder, sizes);
  auto options = optionsFor(path, sizes);
  options.fdatasync = [](int fd) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return ::fdatasync(fd);
  };
  auto record = mustOpen(options);
  std::vector<std::thread> writers;
  for (uint64_t thread = 0; thread < 8; thread++) {
    writers.emplace_back([&, thread] {
      // Every second region: nobody is spared a wait by his neighbour.
      for (uint64_t at = 0; at < 32; at++) record->touch(0, (at * 8 + thread) * 2 * kRegion, 512);
    });
  }
  for (std::thread& writer : writers) writer.join();
  CHECK(record->counters().active == 256);
  CHECK(record->counters().syncs < 256 / 2);
  const auto disk = onDisk(path, sizes);
  bool all = true;
  for (uint64_t at = 0; at < 256; at++) all = all && has(disk, at * 2);
  CHECK(all);
}

TEST("rotate and drop empty the record of what was not touched, on disk too, and of nothing else") {
  test::TemporaryFolder folder;
  const std::vector<uint64_t> sizes = {5000 * kRegion, 5000 * kRegion};
  const std::string path = makeFile(folder, sizes);
  auto record = mustOpen(optionsFor(path, sizes));
  std::mt19937_64 random(test::seed());
  std::set<uint64_t> current, previous, used;
  bool sound = true;
  for (int step = 0; step < 400; step++) {
    const uint64_t what = random() % 20;
    if (what == 0) {
      const bool carry = random() % 2 == 0;
      CHECK(record->rotate(carry).ok());
      previous.insert(current.begin(), current.end());
      if (!carry) current.clear();
      std::erase_if(current, [&](uint64_t region) { return !used.contains(region); });
      used.clear();
    } else if (what == 1) {
      CHECK(record->drop().ok());
      previous.clear();
    } else {
      const auto volume = static_cast<uint16_t>(random() % 2);
      const uint64_t first = random() % 4990;
      const uint64_t count = random() % 8 == 0 ? random() % 9 + 1 : 1;
      record->touch(volume, first * kRegion, count * kRegion);
      for (uint64_t at = first; at < first + count; at++) {
        // Each volume begins at a multiple of 64 regions.
        current.insert(volume * 5056 + at);
        used.insert(volume * 5056 + at);
      }
    }
    const auto memory = record->active();
    const auto disk = onDisk(path, sizes);
    for (const auto* set : {&current, &previous}) {
      for (const uint64_t region : *set) sound = sound && has(memory, region) && has(disk, region);
    }
  }
  CHECK(sound);
  for (int round = 0; round < 2; round++) CHECK(record->rotate(true).ok() && record->drop().ok());
  CHECK(record->counters().active == 0);
  const auto disk = onDisk(path, sizes);
  CHECK(std::all_of(disk.begin(), disk.end(), [](uint64_t word) { return word == 0; }));
}

TEST("while the record rotates under writers it names every region whose place was given out since the last drop") {
  test::TemporaryFolder folder;
  constexpr uint64_t kRegions = 512;
  const std::vector<uint64_t> sizes = {kRegions * kRegion};
  auto options = optionsFor(makeFile(folder, sizes), sizes);
  options.fdatasync = [](int) { return 0; };
  auto record = mustOpen(options);
  std::atomic<uint64_t> tail{1};
  std::atomic<int> missing{0};
  std::atomic<bool> stop{false};
  std::vector<std::atomic<uint64_t>> written(kRegions);
  std::vector<std::atomic<uint64_t>> open(4);
  std::vector<std::thread> writers;
  for (size_t thread = 0; thread < open.size(); thread++) {
    writers.emplace_back([&, thread] {
      std::mt19937_64 random(test::seed() + thread);
      while (!stop) {
        const uint64_t region = random() % kRegions;
        record->touch(0, region * kRegion, 512);
        std::this_thread::yield();
        // A place is open from before it is given out, as in the journal's ring.
        open[thread] = tail.load();
        const uint64_t place = tail.fetch_add(1);
        record->touch(0, region * kRegion, 512);
        uint64_t before = written[region];
        while (before < place && !written[region].compare_exchange_weak(before, place)) {
        }
        open[thread] = 0;
      }
    });
  }
  for (int round = 0; round < 3000 || tail < 20'000; round++) {
    CHECK(record->rotate(round % 2 == 0).ok());
    // What journal.sync() waits for: every place below is complete.
    const uint64_t until = tail.load();
    for (auto& place : open) {
      while (place != 0 && place < until && !stop) std::this_thread::yield();
    }
    CHECK(record->drop().ok());
    std::vector<uint64_t> last(kRegions);
    for (uint64_t region = 0; region < kRegions; region++) last[region] = written[region];
    const auto active = record->active();
    for (uint64_t region = 0; region < kRegions; region++) {
      if (last[region] >= until && !has(active, region)) ++missing;
    }
  }
  stop = true;
  for (std::thread& writer : writers) writer.join();
  CHECK(missing == 0);
  CHECK(tail > 3000);
}

TEST("a record that cannot be synced says so once, and its writers wait until it is given up") {
  test::TemporaryFolder folder;
  const std::vector<uint64_t> sizes = {100 * kRegion};
  auto options = optionsFor(makeFile(folder, sizes), sizes);
  std::atomic<int> failures{0};
  options.fdatasync = [](int) {
    errno = EIO;
    return -1;
  };
  options.onEvent = [&](const RegionEvent& event) {
    if (event.kind == RegionEvent::Kind::kFailed && event.error.code == "REGIONS_UNWRITABLE") ++failures;
  };
  auto record = mustOpen(options);
  std::atomic<int> returned{0};
  std::vector<std::thread> writers;
  for (uint64_t at = 0; at < 3; at++) {
    writers.emplace_back([&, at] {
      record->touch(0, at * 2 * kRegion, 512);
      ++returned;
    });
  }
  CHECK(eventually([&] { return failures == 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(returned == 0);
  CHECK(!record->rotate(false).ok());
  record->giveUp();
  for (std::thread& writer : writers) writer.join();
  record->touch(0, 50 * kRegion, 512);
  CHECK(failures == 1);
}

TEST("the limit is told once until the record rotates, and nobody waits for it") {
  test::TemporaryFolder folder;
  const std::vector<uint64_t> sizes = {1000 * kRegion};
  auto options = optionsFor(makeFile(folder, sizes), sizes);
  std::atomic<int> told{0};
  options.limitRegions = 10;
  options.onEvent = [&](const RegionEvent& event) {
    if (event.kind == RegionEvent::Kind::kLimit) ++told;
  };
  auto record = mustOpen(options);
  for (uint64_t at = 0; at < 9; at++) record->touch(0, at * 2 * kRegion, 512);
  CHECK(told == 0);
  for (uint64_t at = 9; at < 20; at++) record->touch(0, at * 2 * kRegion, 512);
  CHECK(told == 1);
  CHECK(record->rotate(false).ok());
  CHECK(record->counters().current == 0 && record->counters().previous == 20);
  for (uint64_t at = 30; at < 45; at++) record->touch(0, at * 2 * kRegion, 512);
  CHECK(told == 2);
}

TEST("a damaged page counts as all its regions; a header of another stream is refused") {
  test::TemporaryFolder folder;
  const std::vector<uint64_t> sizes = {10'000 * kRegion};
  const std::string path = makeFile(folder, sizes);
  {
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    const char byte = 1;
    CHECK(::pwrite(fd, &byte, 1, kRegionHeaderBytes + kRegionPageBytes + 100) == 1);
    ::close(fd);
  }
  const auto found = onDisk(path, sizes);
  CHECK(!has(found, 3967) && has(found, 3968) && has(found, 7935) && !has(found, 7936));
  auto other = optionsFor(path, sizes);
  other.recordId[0] ^= 1;
  const auto foreign = RegionRecord::open(other);
  CHECK(!foreign.ok() && foreign.error().code == "REGIONS_DAMAGED");
  const auto resized = RegionRecord::open(optionsFor(path, {20'000 * kRegion}));
  CHECK(!resized.ok() && resized.error().code == "REGIONS_DAMAGED");
}

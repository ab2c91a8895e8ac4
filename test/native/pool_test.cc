// SPDX-License-Identifier: Apache-2.0
#include "../../native/pool/pool.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <random>
#include <thread>

#include "pool_fixture.h"

using namespace tidemark;
using namespace tidemark::test;
using Kind = LogEvent::Kind;

namespace {

/** The first block that a test uses of each device: behind the ring. */
constexpr uint64_t kFirstBlock = (kRingOffset + kRingPlaces * 32) / kPoolBlockBytes;
static_assert(kFirstBlock * kPoolBlockBytes < kPoolDeviceBytes / 2);

constexpr uint64_t locationOf(uint64_t device, uint64_t index) {
  return device << kDeviceShift | (kFirstBlock + index);
}

PoolOptions optionsFor(std::vector<std::string> paths, LogEvents& events) {
  PoolOptions options;
  options.name = "tank";
  for (std::string& path : paths) options.devices.push_back({std::move(path), kPoolDeviceBytes});
  options.blockBytes = kPoolBlockBytes;
  options.log = {kRingOffset, kRingPlaces, kPoolSeed, 0, 0};
  options.onEvent = events.listener();
  return options;
}

std::shared_ptr<Pool> mustOpen(PoolOptions options) {
  auto opened = Pool::open(std::move(options));
  if (!opened) std::printf("open: %s %s\n", opened.error().code.c_str(), opened.error().message.c_str());
  CHECK(opened.ok());
  return opened.take();
}

std::vector<uint8_t> filled(uint8_t byte) { return std::vector<uint8_t>(kPoolBlockBytes, byte); }

int writeBlock(Pool& pool, uint64_t location, uint8_t byte) {
  const auto bytes = filled(byte);
  return pool.write(location * kPoolBlockBytes, bytes.data(), bytes.size());
}

/** The byte all of the block is made of, or -1. */
int readBlock(const Pool& pool, uint64_t location) {
  std::vector<uint8_t> bytes(kPoolBlockBytes, 0xee);
  CHECK(pool.read(location * kPoolBlockBytes, bytes.data(), bytes.size()) == 0);
  return bytes == filled(bytes[0]) ? bytes[0] : -1;
}

std::vector<WalkedLogRecord> walkRing(const std::string& path, uint64_t from) {
  const std::vector<uint8_t> ring = readFile(path, kRingOffset, kRingPlaces * 32);
  return LogWalk(ring, true).from(from);
}

uint64_t spaceOf(const std::string& path) {
  struct stat status {};
  CHECK(stat(path.c_str(), &status) == 0);
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

}  // namespace

TEST("a location leads to its block on its device, and no other byte of any device changes") {
  TemporaryFolder folder;
  LogEvents events;
  const std::vector<std::string> paths = {makeDeviceFile(folder, "a"), makeDeviceFile(folder, "b"),
                                          makeDeviceFile(folder, "c")};
  auto pool = mustOpen(optionsFor(paths, events));
  CHECK(pool->deviceCount() == 3 && pool->sizeBytes() == 3 * kPoolDeviceBytes);
  CHECK(pool->logicalBlockBytes() == 512 && !pool->isBlockDevice());
  for (uint64_t device = 0; device < 3; device++) {
    CHECK(writeBlock(*pool, locationOf(device, 5), static_cast<uint8_t>(device + 1)) == 0);
    CHECK(pool->write(locationOf(device, 7) * kPoolBlockBytes + 512, "here", 4) == 0);
  }
  for (uint64_t device = 0; device < 3; device++) {
    CHECK(readBlock(*pool, locationOf(device, 5)) == static_cast<int>(device) + 1);
    const auto all = readFile(paths[device], 0, kPoolDeviceBytes);
    std::vector<uint8_t> expected(kPoolDeviceBytes);
    std::memset(expected.data() + (kFirstBlock + 5) * kPoolBlockBytes, static_cast<int>(device) + 1, kPoolBlockBytes);
    std::memcpy(expected.data() + (kFirstBlock + 7) * kPoolBlockBytes + 512, "here", 4);
    CHECK(all == expected);
  }
  CHECK(pool->trim(locationOf(1, 5) * kPoolBlockBytes, kPoolBlockBytes) == 0);
  CHECK(pool->zero(locationOf(2, 5) * kPoolBlockBytes + 512, kPoolBlockBytes - 512) == 0);
  CHECK(readBlock(*pool, locationOf(0, 5)) == 1 && readBlock(*pool, locationOf(1, 5)) == 0);
  CHECK(readBlock(*pool, locationOf(2, 5)) == -1);
  // A found offset is one of the pool, of the same device.
  const uint64_t from = locationOf(2, 5) * kPoolBlockBytes;
  const int64_t hole = pool->seek(from, SEEK_HOLE);
  const uint64_t end = (uint64_t{2} << kDeviceShift) * kPoolBlockBytes + kPoolDeviceBytes;
  CHECK(hole > static_cast<int64_t>(from) && hole <= static_cast<int64_t>(end));
}

TEST("a sync makes changed devices durable, then commits up to where the log stood before, then writes it through") {
  TemporaryFolder folder;
  LogEvents events;
  const std::vector<std::string> paths = {makeDeviceFile(folder, "a"), makeDeviceFile(folder, "b")};
  std::vector<std::string> steps;
  Pool* raw = nullptr;
  PoolOptions options = optionsFor(paths, events);
  options.syncDevice = [&](uint32_t number, Backing& device) {
    steps.push_back("device " + std::to_string(number));
    // What comes while the devices are synced is not covered: its data may have come too late.
    if (number == 0) CHECK(raw->publishMap(1, 100, locationOf(0, 9)) == 0);
    return device.sync();
  };
  options.logSystem.write = [&](int fd, const void* bytes, size_t length, uint64_t offset) {
    const uint8_t type = static_cast<const uint8_t*>(bytes)[23];
    steps.push_back(type == 0 ? "page" : type == 3 ? "commit" : "record");
    return pwrite(fd, bytes, length, static_cast<off_t>(offset)) == static_cast<ssize_t>(length) ? 0 : EIO;
  };
  options.logSystem.sync = [&](int, void*, size_t) {
    steps.push_back("through");
    return 0;
  };
  auto pool = mustOpen(std::move(options));
  raw = pool.get();
  // Whatever an agent that died wrote is made durable by the first.
  CHECK(pool->syncCovered().value() == 0);
  CHECK((steps == std::vector<std::string>{"device 0", "page", "record", "device 1"}));
  steps.clear();
  CHECK(writeBlock(*pool, locationOf(1, 1), 1) == 0);
  CHECK(pool->publishMap(1, 0, locationOf(1, 1)) == 0);
  steps.clear();
  CHECK(pool->syncCovered().value() == 2);
  CHECK((steps == std::vector<std::string>{"device 1", "commit", "through"}));
  CHECK(pool->log().committed() == 2 && walkRing(paths[0], 2)[0].value == 2);
  steps.clear();
  CHECK(pool->sync() == 0);
  CHECK(steps.empty());
  CHECK(pool->trim(locationOf(0, 3) * kPoolBlockBytes, kPoolBlockBytes) == 0);
  CHECK(pool->sync() == 0);
  CHECK((steps == std::vector<std::string>{"device 0", "record"}));
  steps.clear();
  CHECK(pool->sync() == 0);
  CHECK((steps == std::vector<std::string>{"commit", "through"}));
  const BlockRange range{locationOf(1, 2), 1};
  steps.clear();
  CHECK(pool->discard({&range, 1}).ok());
  CHECK(pool->sync() == 0);
  CHECK((steps == std::vector<std::string>{"device 1"}));
}

TEST("a device that could not be synced fails the pool for good: it is not asked again, and nothing is committed") {
  TemporaryFolder folder;
  LogEvents events;
  const std::vector<std::string> paths = {makeDeviceFile(folder, "a"), makeDeviceFile(folder, "b")};
  std::atomic<int> syncs{0};
  PoolOptions options = optionsFor(paths, events);
  options.syncDevice = [&](uint32_t number, Backing&) {
    ++syncs;
    return number == 1 ? EIO : 0;
  };
  auto pool = mustOpen(std::move(options));
  CHECK(writeBlock(*pool, locationOf(1, 1), 7) == 0);
  CHECK(pool->publishMap(1, 0, locationOf(1, 1)) == 0);
  const auto failed = pool->syncCovered();
  CHECK(!failed.ok() && failed.error().code == "POOL_FAILED");
  CHECK(failed.error().message.find(paths[1]) != std::string::npos);
  CHECK(syncs == 2 && events.count(Kind::kFailed) == 1);
  CHECK(pool->sync() == EIO);
  CHECK(pool->sync() == EIO);
  CHECK(pool->publishMap(1, 1, locationOf(1, 2)) == EIO);
  CHECK(pool->publishHoles(1, 1, 5) == EIO);
  CHECK(pool->append(operationOf("{}")).error().code == "POOL_FAILED");
  CHECK(syncs == 2 && events.count(Kind::kFailed) == 1);
  CHECK(pool->log().committed() == 0 && walkRing(paths[0], 0).size() == 1);
  // What is there can still be read, and written in place.
  CHECK(writeBlock(*pool, locationOf(1, 1), 8) == 0);
  CHECK(readBlock(*pool, locationOf(1, 1)) == 8);
}

TEST("whoever waits for a sync of a pool that fails is told, and so is whoever waits for room in the log") {
  TemporaryFolder folder;
  LogEvents events;
  std::atomic<bool> mayFail{false};
  PoolOptions options = optionsFor({makeDeviceFile(folder, "a")}, events);
  options.syncDevice = [&](uint32_t, Backing&) {
    while (!mayFail) std::this_thread::yield();
    return EIO;
  };
  auto pool = mustOpen(std::move(options));
  while (pool->log().head() < kRingPlaces - kLogReserveMinimum) {
    if (pool->publishMap(1, 1, locationOf(0, 1)) != 0) break;
  }
  std::vector<std::thread> threads;
  std::atomic<int> told{0};
  for (int i = 0; i < 4; i++) threads.emplace_back([&] { told += pool->sync() == EIO ? 1 : 0; });
  for (int i = 0; i < 2; i++) threads.emplace_back([&] { told += pool->publishMap(1, 1, 1) == EIO ? 1 : 0; });
  CHECK(eventually([&] { return events.count(Kind::kFull) == 1; }));
  mayFail = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(told == 6 && events.count(Kind::kFailed) == 1);
}

TEST("syncs that are asked for while one runs share the next one, and not the one that runs") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "a");
  std::atomic<int> running{0}, syncs{0};
  std::atomic<bool> go{false};
  PoolOptions options = optionsFor({path}, events);
  options.syncDevice = [&](uint32_t, Backing&) {
    CHECK(++running == 1);
    ++syncs;
    while (!go) std::this_thread::yield();
    --running;
    return 0;
  };
  auto pool = mustOpen(std::move(options));
  std::thread first([&] { CHECK(pool->sync() == 0); });
  CHECK(eventually([&] { return syncs == 1; }));
  CHECK(writeBlock(*pool, locationOf(0, 1), 1) == 0);
  CHECK(pool->publishMap(1, 1, locationOf(0, 1)) == 0);
  std::atomic<int> asked{0};
  std::vector<std::thread> later;
  for (int i = 0; i < 8; i++) {
    later.emplace_back([&] {
      ++asked;
      CHECK(pool->syncCovered().value() >= 1);
      CHECK(pool->log().committed() >= 1);
    });
  }
  CHECK(eventually([&] { return asked == 8; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  go = true;
  first.join();
  for (std::thread& thread : later) thread.join();
  CHECK(syncs == 2);
}

TEST("a power cut at any moment leaves a ring that commits no block without its data, and all that a sync promised") {
  TemporaryFolder folder;
  LogEvents events;
  const std::vector<std::string> paths = {makeDeviceFile(folder, "a"), makeDeviceFile(folder, "b")};
  constexpr uint64_t kBlocks = 240;
  // What the disks hold for certain: of the data what was written before the sync began, of the ring what was synced.
  std::vector<std::vector<uint8_t>> durable(2);
  std::vector<uint8_t> ring(kRingPlaces * 32);
  std::mutex disks;
  int cuts = 0, commits = 0;
  bool sound = true;
  std::atomic<bool> kept{true};
  PoolOptions options = optionsFor(paths, events);
  // The MAP records that count after a power cut.
  const auto recovered = [&] {
    auto records = LogWalk(ring, true).from(0);
    uint64_t covered = 0;
    for (const WalkedLogRecord& record : records) {
      if (record.type == LogRecordType::kCommit) covered = record.value, commits++;
    }
    std::erase_if(records, [&](const WalkedLogRecord& record) {
      return record.sequence >= covered || record.type != LogRecordType::kMap;
    });
    return records;
  };
  const auto cut = [&] {
    cuts++;
    for (const WalkedLogRecord& record : recovered()) {
      const auto& data = durable[record.value >> kDeviceShift];
      const uint64_t at = (record.value % (uint64_t{1} << kDeviceShift)) * kPoolBlockBytes;
      const auto expected = filled(static_cast<uint8_t>(record.subject * 7 + record.layer));
      sound = sound && data.size() > at && std::memcmp(data.data() + at, expected.data(), kPoolBlockBytes) == 0;
    }
  };
  options.syncDevice = [&](uint32_t number, Backing&) {
    auto now = readFile(paths[number], 0, kPoolDeviceBytes);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const std::lock_guard lock(disks);
    durable[number] = std::move(now);
    // As late as it can be, the kernel has written of the ring what it liked.
    if (number == 0) ring = readFile(paths[0], kRingOffset, ring.size());
    cut();
    return 0;
  };
  const uint8_t* mapped = nullptr;
  options.logSystem.sync = [&](int, void* from, size_t length) {
    // The first begins where the ring does.
    const std::lock_guard lock(disks);
    const auto* const at = static_cast<const uint8_t*>(from);
    if (mapped == nullptr) mapped = at;
    std::memcpy(ring.data() + (at - mapped), at, length);
    cut();
    return 0;
  };
  auto pool = mustOpen(std::move(options));
  std::vector<std::thread> writers;
  std::atomic<bool> done{false};
  for (uint32_t layer = 1; layer <= 2; layer++) {
    writers.emplace_back([&, layer] {
      std::mt19937_64 random(seed() + layer);
      for (uint64_t block = 0; block < kBlocks / 2; block++) {
        const uint64_t location = locationOf(random() % 2, block * 2 + layer - 1);
        CHECK(writeBlock(*pool, location, static_cast<uint8_t>(block * 7 + layer)) == 0);
        CHECK(pool->publishMap(layer, block, location) == 0);
        if (random() % 10 != 0) continue;
        CHECK(pool->sync() == 0);
        const std::lock_guard lock(disks);
        uint64_t found = 0;
        for (const WalkedLogRecord& record : recovered()) found += record.layer == layer ? 1 : 0;
        kept = kept && found >= block + 1;
      }
    });
  }
  std::thread syncer([&] {
    while (!done) {
      CHECK(pool->sync() == 0);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  for (std::thread& writer : writers) writer.join();
  done = true;
  syncer.join();
  CHECK(pool->sync() == 0);
  CHECK(sound && kept && cuts > 4 && commits > 0);
  CHECK(pool->log().committed() >= kBlocks);
}

TEST("what is discarded on files reads as zeros for certain, and its space is free") {
  TemporaryFolder folder;
  LogEvents events;
  const std::vector<std::string> paths = {makeDeviceFile(folder, "a"), makeDeviceFile(folder, "b")};
  auto pool = mustOpen(optionsFor(paths, events));
  for (uint64_t device = 0; device < 2; device++) {
    for (uint64_t index = 0; index < 64; index++) CHECK(writeBlock(*pool, locationOf(device, index), 9) == 0);
  }
  CHECK(pool->sync() == 0);
  const uint64_t before = spaceOf(paths[1]);
  const std::vector<BlockRange> ranges = {{locationOf(1, 0), 32}, {locationOf(1, 40), 8}, {locationOf(0, 63), 1}};
  const auto zeros = pool->discard(ranges);
  CHECK(zeros.ok());
  for (uint64_t index = 0; index < 64; index++) {
    const bool gone = index < 32 || (index >= 40 && index < 48);
    CHECK(readBlock(*pool, locationOf(0, index)) == (zeros.value() && index == 63 ? 0 : 9));
    CHECK(readBlock(*pool, locationOf(1, index)) == (zeros.value() && gone ? 0 : 9));
  }
  if (zeros.value()) CHECK(spaceOf(paths[1]) + 40 * kPoolBlockBytes <= before);
  const uint64_t blocks = kPoolDeviceBytes / kPoolBlockBytes;
  for (const BlockRange& range : std::vector<BlockRange>{{locationOf(2, 0), 1},
                                                         {blocks, 1},
                                                         {blocks - 1, 2},
                                                         {uint64_t{1} << 63, 1},
                                                         {locationOf(1, 0), ~uint64_t{0}}}) {
    CHECK(pool->discard({&range, 1}).error().code == "INVALID_ARGUMENT");
  }
}

TEST("data that go past the page cache meet neither a page of the log nor the other way round") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "a");
  PoolOptions options = optionsFor({path}, events);
  options.direct = true;
  auto opened = Pool::open(std::move(options));
  // A file system that has only the page cache.
  if (!opened && opened.error().errnoValue == EINVAL) return;
  CHECK(opened.ok());
  const std::shared_ptr<Pool> pool = opened.take();
  CHECK(pool->logicalBlockBytes() >= 512 && kPoolBlockBytes % pool->logicalBlockBytes() == 0);
  const std::unique_ptr<void, void (*)(void*)> block(std::aligned_alloc(4096, kPoolBlockBytes), std::free);
  // The ring's neighbours, while the ring is written between them.
  const uint64_t before = kRingOffset / kPoolBlockBytes - 1;
  for (int round = 1; round <= 20; round++) {
    for (const uint64_t location : {before, kFirstBlock}) {
      std::memset(block.get(), round, kPoolBlockBytes);
      CHECK(pool->write(location * kPoolBlockBytes, block.get(), kPoolBlockBytes) == 0);
      CHECK(pool->publishMap(1, static_cast<uint64_t>(round), location) == 0);
    }
    CHECK(pool->sync() == 0);
    for (const uint64_t location : {before, kFirstBlock}) {
      CHECK(pool->read(location * kPoolBlockBytes, block.get(), kPoolBlockBytes) == 0);
      CHECK(static_cast<uint8_t*>(block.get())[kPoolBlockBytes - 1] == round);
      CHECK(readFile(path, location * kPoolBlockBytes, 1)[0] == round);
    }
  }
  CHECK(walkRing(path, 0).size() == pool->log().head());
}

TEST("devices are added while others are written and synced; no more than sixty-four") {
  TemporaryFolder folder;
  LogEvents events;
  auto pool = mustOpen(optionsFor({makeDeviceFile(folder, "0")}, events));
  std::atomic<bool> done{false}, written{false};
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < 3; thread++) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(seed() + thread);
      while (!done) {
        const uint64_t device = random() % pool->deviceCount();
        const uint64_t location = locationOf(device, thread * 8 + random() % 8);
        CHECK(writeBlock(*pool, location, static_cast<uint8_t>(device + 1)) == 0);
        CHECK(readBlock(*pool, location) == static_cast<int>(device) + 1);
        CHECK(pool->publishMap(1, thread, location) == 0);
        if (random() % 16 == 0) CHECK(pool->sync() == 0);
      }
    });
  }
  std::thread taker([&] {
    std::vector<uint8_t> taken;
    while (!written) {
      const uint64_t head = pool->log().head();
      pool->log().take(taken);
      CHECK(pool->log().trim(head).ok());
      std::this_thread::yield();
    }
  });
  for (uint32_t number = 1; number < kPoolDeviceLimit; number++) {
    CHECK(pool->addDevice({makeDeviceFile(folder, std::to_string(number)), kPoolDeviceBytes}).ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  written = true;
  taker.join();
  CHECK(pool->deviceCount() == kPoolDeviceLimit);
  CHECK(pool->addDevice({makeDeviceFile(folder, "64"), 0}).error().code == "TOO_MANY_DEVICES");
}

TEST("a pool whose devices are missing, too small or in use is not opened, and nothing stays locked") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string a = makeDeviceFile(folder, "a");
  const std::string b = makeDeviceFile(folder, "b");
  CHECK(Pool::open(optionsFor({a, folder.path() + "/none"}, events)).error().code == "NOT_FOUND");
  CHECK(Pool::open(optionsFor({a, a}, events)).error().code == "DEVICE_BUSY");
  CHECK(Pool::open(optionsFor({a, makeDeviceFile(folder, "small", 1 << 20)}, events)).error().code ==
        "BACKING_TOO_SMALL");
  PoolOptions far = optionsFor({a}, events);
  far.log.offset = kPoolDeviceBytes - 4096;
  CHECK(Pool::open(std::move(far)).error().code == "BACKING_TOO_SMALL");
  PoolOptions odd = optionsFor({a}, events);
  odd.blockBytes = 12 << 10;
  CHECK(Pool::open(std::move(odd)).error().code == "INVALID_ARGUMENT");
  CHECK(Pool::open(optionsFor({}, events)).error().code == "INVALID_ARGUMENT");
  {
    auto pool = mustOpen(optionsFor({a}, events));
    CHECK(Pool::open(optionsFor({a}, events)).error().code == "DEVICE_BUSY");
    CHECK(Backing::open({a, false, false}).error().code == "DEVICE_BUSY");
    CHECK(pool->addDevice({a, 0}).error().code == "DEVICE_BUSY");
    CHECK(pool->addDevice({b, kPoolDeviceBytes + 1}).error().code == "BACKING_TOO_SMALL");
    CHECK(pool->addDevice({b, kPoolDeviceBytes}).ok());
    pool->close();
    CHECK(pool->deviceCount() == 0);
  }
  auto again = mustOpen(optionsFor({a, b}, events));
  CHECK(again->deviceCount() == 2);
}

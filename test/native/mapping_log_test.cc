// SPDX-License-Identifier: Apache-2.0
#include "../../native/pool/mapping_log.h"

#include <fcntl.h>

#include <atomic>
#include <random>
#include <thread>

#include "pool_fixture.h"

using namespace tidemark;
using namespace tidemark::test;
using Kind = LogEvent::Kind;

namespace {

MappingLogOptions optionsFor(const std::string& path, LogEvents& events, uint64_t head = 0, uint64_t tail = 0) {
  MappingLogOptions options;
  options.fd.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  options.offset = kRingOffset;
  options.capacityRecords = kRingPlaces;
  options.seed = kPoolSeed;
  options.head = head;
  options.tail = tail;
  options.onEvent = events.listener();
  return options;
}

std::unique_ptr<MappingLog> mustOpen(MappingLogOptions options) {
  auto opened = MappingLog::open(std::move(options));
  CHECK(opened.ok());
  return opened.take();
}

std::vector<WalkedLogRecord> walkRing(const std::string& path, uint64_t from, uint64_t places = kRingPlaces) {
  const std::vector<uint8_t> ring = readFile(path, kRingOffset, places * 32);
  return LogWalk(ring, true).from(from);
}

int publish(MappingLog& log, uint64_t block, uint32_t layer = 1) {
  return log.publish(LogRecordType::kMap, layer, block, block + 1000);
}

/** Publishes until so many places of the ring are used. */
void fillTo(MappingLog& log, uint64_t head) {
  while (log.head() < head) {
    if (publish(log, log.head()) != 0) return;
  }
}

}  // namespace

TEST("log records are on the ring as the format says, and are taken in the same order") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "device");
  auto log = mustOpen(optionsFor(path, events, 7, 7));
  CHECK(log->publish(LogRecordType::kMap, 0x01020304, 0x0011223344556677, 0xfedcba98) == 0);
  CHECK(log->publish(LogRecordType::kHole, 5, 6, uint64_t{1} << 40) == 0);
  const std::string text = "{\"op\":\"snapshot\",\"of\":\"a volume whose name is not short\"}";
  const auto operation = operationOf(text);
  CHECK(operation.size() == 96);
  auto appended = log->append(operation);
  CHECK(appended.ok() && appended.value() == 9);
  appended = log->append(recordOf(LogRecordType::kRelease, 0, 77, 0));
  CHECK(appended.ok() && appended.value() == 12);
  CHECK(log->head() == 13);

  // Made with a bitwise CRC32C, outside of this project.
  const std::vector<uint8_t> first = readFile(path, kRingOffset + 7 * 32, 32);
  const std::vector<uint8_t> known = {0x52, 0xe6, 0x9e, 0x3b, 0x04, 0x03, 0x02, 0x01, 0x07, 0, 0, 0, 0, 0, 0, 0,
                                      0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x01, 0x98, 0xba, 0xdc, 0xfe,
                                      0, 0, 0, 0};
  CHECK(first == known);

  const auto walked = walkRing(path, 7);
  CHECK(walked.size() == 4);
  CHECK(walked[0].subject == 0x11223344556677 && walked[0].value == 0xfedcba98 && walked[0].layer == 0x01020304);
  CHECK(walked[1].type == LogRecordType::kHole && walked[1].value == uint64_t{1} << 40);
  CHECK(walked[2].text == text);
  CHECK(walked[3].type == LogRecordType::kRelease && walked[3].subject == 77 && walked[3].sequence == 12);
  std::vector<uint8_t> taken;
  log->take(taken);
  CHECK(taken == readFile(path, kRingOffset + 7 * 32, 6 * 32));
  log->take(taken);
  CHECK(taken.empty());
}

TEST("an operation that wraps around the ring's end is read whole, and the round before is not believed") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "device");
  const uint64_t start = 3 * kRingPlaces - 2;
  auto log = mustOpen(optionsFor(path, events, start, start));
  const std::string text(100, 't');
  CHECK(log->append(operationOf(text)).value() == start);
  CHECK(publish(*log, 1) == 0);
  auto walked = walkRing(path, start);
  CHECK(walked.size() == 2 && walked[0].text == text && walked[1].sequence == start + 5);
  CHECK(log->commit(log->head()).ok());
  // A whole round later the same places hold newer records, and the reader of the old ones ends there.
  std::vector<uint8_t> taken;
  for (uint64_t round = 0; round < 2; round++) {
    fillTo(*log, start + kRingPlaces / 2 * (round + 1));
    log->take(taken);
    CHECK(log->trim(log->head()).ok());
  }
  fillTo(*log, start + kRingPlaces + 3);
  CHECK(walkRing(path, start).empty());
  // What was in the page of the head before is gone; behind it lies the round before.
  walked = walkRing(path, start + 2 + 128);
  CHECK(walked.size() == kRingPlaces + 3 - 130);
}

TEST("publishers leave a reserve in the ring and wait; the rest of it is for operations, the last places for COMMITs") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "device");
  auto log = mustOpen(optionsFor(path, events));
  const uint64_t limit = kRingPlaces - kLogReserveMinimum;
  fillTo(*log, limit);
  CHECK(log->head() == limit && events.count(Kind::kFull) == 0);
  std::atomic<int> published{0};
  std::vector<std::thread> waiting;
  for (int i = 0; i < 3; i++) {
    waiting.emplace_back([&] {
      CHECK(publish(*log, 1) == 0);
      ++published;
    });
  }
  CHECK(eventually([&] { return events.count(Kind::kFull) == 1; }));
  const std::vector<uint8_t> release = recordOf(LogRecordType::kRelease, 0, 1, 0);
  while (log->head() < kRingPlaces - kLogCommitReserve) CHECK(log->append(release).ok());
  auto refused = log->append(release);
  CHECK(!refused.ok() && refused.error().code == "LOG_FULL");
  CHECK(log->commit(limit).ok());
  CHECK(log->commit(log->head()).ok());
  CHECK(log->commit(log->head()).ok());
  CHECK(log->head() == kRingPlaces - kLogCommitReserve + 2);
  CHECK(published == 0 && events.count(Kind::kFull) == 1);

  std::vector<uint8_t> taken;
  log->take(taken);
  CHECK(taken.size() == log->head() * 32);
  // No room comes of this: it is said again that they wait.
  CHECK(log->trim(1).ok());
  CHECK(eventually([&] { return events.count(Kind::kFull) == 2; }));
  CHECK(published == 0);
  CHECK(log->trim(limit).ok());
  for (std::thread& thread : waiting) thread.join();
  CHECK(published == 3);
  CHECK(log->append(release).ok());
  CHECK(walkRing(path, limit).size() == log->head() - limit);
}

TEST("a third of the ring appended since trim() is said once, also when the ring was filled before") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "device");
  auto log = mustOpen(optionsFor(path, events, kRingPlaces, kRingPlaces - 1000));
  fillTo(*log, kRingPlaces + 300);
  CHECK(events.count(Kind::kFilling) == 0);
  fillTo(*log, kRingPlaces + 400);
  CHECK(events.count(Kind::kFilling) == 1);
  std::vector<uint8_t> taken;
  log->take(taken);
  CHECK(log->trim(kRingPlaces).ok());
  fillTo(*log, kRingPlaces + 400 + kRingPlaces / 3);
  CHECK(events.count(Kind::kFilling) == 1);
  fillTo(*log, kRingPlaces + 402 + kRingPlaces / 3);
  CHECK(events.count(Kind::kFilling) == 2);
}

TEST("that records wait is said at 4096 of them or at a COMMIT, once until they are taken") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "device");
  MappingLogOptions options = optionsFor(path, events);
  options.capacityRecords = 4 * kRingPlaces;
  auto log = mustOpen(std::move(options));
  fillTo(*log, kLogTakeMark - 1);
  CHECK(events.count(Kind::kAppended) == 0);
  fillTo(*log, kLogTakeMark + 100);
  CHECK(events.count(Kind::kAppended) == 1);
  CHECK(log->commit(log->head()).ok());
  CHECK(events.count(Kind::kAppended) == 1);
  std::vector<uint8_t> taken;
  log->take(taken);
  CHECK(log->commit(log->head()).ok());
  CHECK(events.count(Kind::kAppended) == 1);
  CHECK(publish(*log, 5) == 0);
  CHECK(events.count(Kind::kAppended) == 1);
  CHECK(log->commit(log->head()).ok());
  CHECK(events.count(Kind::kAppended) == 2);
}

TEST("a COMMIT is appended only when records since the last one are covered, and says what was durable before it") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "device");
  auto log = mustOpen(optionsFor(path, events, 10, 10));
  CHECK(log->commit(10).ok());
  CHECK(log->head() == 10 && log->committed() == 10);
  CHECK(publish(*log, 1) == 0);
  CHECK(publish(*log, 2) == 0);
  CHECK(log->commit(11).ok());
  CHECK(log->head() == 13 && log->committed() == 11);
  CHECK(log->commit(11).ok());
  CHECK(log->head() == 13);
  CHECK(log->commit(13).ok());
  CHECK(log->head() == 14 && log->committed() == 13);
  // Nothing but the COMMIT itself has come since.
  CHECK(log->commit(14).ok());
  CHECK(log->head() == 14);
  const auto walked = walkRing(path, 10);
  CHECK(walked.size() == 4);
  CHECK(walked[2].type == LogRecordType::kCommit && walked[2].value == 11 && walked[2].subject == 0);
  CHECK(walked[3].type == LogRecordType::kCommit && walked[3].value == 13);
}

TEST("a log opened again goes on where the reader of the ring ended") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "device");
  {
    auto log = mustOpen(optionsFor(path, events, 4000, 4000));
    fillTo(*log, 4200);
    CHECK(log->append(operationOf("{}")).ok());
  }
  const auto walked = walkRing(path, 4000);
  CHECK(walked.size() == 201 && walked.back().text == "{}");
  auto log = mustOpen(optionsFor(path, events, 4202, 4000));
  CHECK(publish(*log, 1) == 0);
  CHECK(walkRing(path, 4000).size() == 202);
  std::vector<uint8_t> taken;
  log->take(taken);
  CHECK(taken.size() == 32);
  CHECK(LogWalk(taken, false).from(4202).size() == 1);
}

TEST("a write to the ring that failed ends the log for good: everybody gets EIO, nothing is tried again") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "device");
  MappingLogOptions options = optionsFor(path, events);
  std::atomic<bool> broken{false};
  std::atomic<int> writes{0};
  options.system.write = [&](int fd, const void* bytes, size_t length, uint64_t offset) {
    ++writes;
    if (broken) return ENOSPC;
    return pwrite(fd, bytes, length, static_cast<off_t>(offset)) == static_cast<ssize_t>(length) ? 0 : EIO;
  };
  auto log = mustOpen(std::move(options));
  fillTo(*log, kRingPlaces - kLogReserveMinimum);
  std::atomic<int> waited{-1};
  std::thread waiting([&] { waited = publish(*log, 1); });
  CHECK(eventually([&] { return events.count(Kind::kFull) == 1; }));
  broken = true;
  const uint64_t head = log->head();
  auto appended = log->append(operationOf("{}"));
  CHECK(!appended.ok() && appended.error().code == "POOL_FAILED" && appended.error().errnoValue == EIO);
  waiting.join();
  CHECK(waited == EIO);
  broken = false;
  const int before = writes;
  CHECK(publish(*log, 1) == EIO);
  CHECK(!log->append(operationOf("{}")).ok());
  CHECK(log->commit(head).error().code == "POOL_FAILED");
  CHECK(writes == before && log->head() == head);
  CHECK(events.count(Kind::kFailed) == 1);
  CHECK(events.failure().find("No space") != std::string::npos);
}

TEST("a COMMIT that could not be written through covers nothing and ends the log for good") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "device");
  MappingLogOptions options = optionsFor(path, events);
  std::atomic<int> syncs{0};
  options.system.sync = [&](int, void*, size_t) { return ++syncs == 1 ? 0 : EIO; };
  auto log = mustOpen(std::move(options));
  CHECK(publish(*log, 1) == 0);
  CHECK(log->commit(1).ok());
  CHECK(publish(*log, 2) == 0);
  CHECK(log->commit(3).error().code == "POOL_FAILED");
  CHECK(log->committed() == 1);
  CHECK(log->commit(3).error().code == "POOL_FAILED");
  CHECK(publish(*log, 3) == EIO);
  CHECK(syncs == 2 && events.count(Kind::kFailed) == 1);
}

TEST("exactly the pages of the ring since the last COMMIT are written through, in two pieces around its end") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "device");
  MappingLogOptions options = optionsFor(path, events, kRingPlaces - 200, kRingPlaces - 200);
  std::vector<std::pair<uint64_t, size_t>> synced;
  options.system.sync = [&](int, void* from, size_t length) {
    synced.emplace_back(reinterpret_cast<uint64_t>(from), length);
    return 0;
  };
  auto log = mustOpen(std::move(options));
  fillTo(*log, kRingPlaces - 100);
  CHECK(log->commit(log->head()).ok());
  fillTo(*log, kRingPlaces + 50);
  CHECK(log->commit(log->head()).ok());
  CHECK(synced.size() == 3);
  const uint64_t page = kLogPageBytes;
  const uint64_t ring = synced[2].first;
  // From the page of place capacity - 200 to the end of the COMMIT at capacity - 100.
  CHECK(synced[0].first == ring + (kRingPlaces - 200) * 32 / page * page);
  CHECK(synced[0].first + synced[0].second == ring + (kRingPlaces - 99) * 32);
  CHECK(synced[1].first == ring + (kRingPlaces - 99) * 32 / page * page);
  CHECK(synced[1].first + synced[1].second == ring + kRingPlaces * 32);
  CHECK(synced[2].second == 51 * 32);
}

TEST("a page of the ring is entered whole, so that nothing need be read, unless records in it are still needed") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "device");
  struct Write {
    uint64_t place, places;
    bool operator==(const Write&) const = default;
  };
  std::vector<Write> writes;
  const auto opened = [&](uint64_t head, uint64_t tail) {
    auto options = optionsFor(path, events, head, tail);
    options.system.write = [&](int fd, const void* bytes, size_t length, uint64_t offset) {
      writes.push_back({(offset - kRingOffset) / 32, length / 32});
      return ::pwrite(fd, bytes, length, static_cast<off_t>(offset)) == static_cast<ssize_t>(length) ? 0 : EIO;
    };
    return mustOpen(std::move(options));
  };
  const auto append = [](MappingLog& log, size_t count) {
    std::vector<uint8_t> records;
    for (size_t at = 0; at < count; at++) {
      const auto record = recordOf(LogRecordType::kRelease, 0, at, 0);
      records.insert(records.end(), record.begin(), record.end());
    }
    return log.append(records).ok();
  };
  {
    auto log = opened(127, 127);
    CHECK(publish(*log, 1) == 0 && publish(*log, 2) == 0 && publish(*log, 3) == 0);
    CHECK((writes == std::vector<Write>{{127, 1}, {128, 128}, {128, 1}, {129, 1}}));
    CHECK(walkRing(path, 127).size() == 3);
    writes.clear();
    CHECK(append(*log, 126) && append(*log, 128) && append(*log, 130));
    CHECK((writes == std::vector<Write>{{130, 126}, {256, 128}, {512, 128}, {384, 130}}));
    CHECK(walkRing(path, 127).size() == 387);
  }
  // A round later: one place of the page is not given back.
  writes.clear();
  const uint64_t page = 256;
  auto log = opened(kRingPlaces + page, page + 127);
  CHECK(append(*log, 1));
  CHECK((writes == std::vector<Write>{{page, 1}}));
  writes.clear();
  log.reset();
  log = opened(kRingPlaces + page, page + 128);
  CHECK(append(*log, 1));
  CHECK((writes == std::vector<Write>{{page, 128}, {page, 1}}));
}

TEST("closing a log lets go of whoever waits for room") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "device");
  auto log = mustOpen(optionsFor(path, events));
  fillTo(*log, kRingPlaces - kLogReserveMinimum);
  std::atomic<int> waited{0};
  std::thread waiting([&] { waited = publish(*log, 1); });
  CHECK(eventually([&] { return events.count(Kind::kFull) == 1; }));
  log->close();
  waiting.join();
  CHECK(waited == EIO);
  CHECK(log->append(operationOf("{}")).error().code == "POOL_CLOSED");
  CHECK(events.count(Kind::kFailed) == 0);
}

TEST("what is not records is not appended, and what was not taken is not trimmed") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "device");
  auto log = mustOpen(optionsFor(path, events));
  const auto refused = [&](std::vector<uint8_t> bytes) {
    const auto appended = log->append(bytes);
    return !appended.ok() && appended.error().code == "INVALID_ARGUMENT";
  };
  CHECK(refused({}));
  CHECK(refused(std::vector<uint8_t>(32)));
  CHECK(refused(std::vector<uint8_t>(33, 1)));
  CHECK(refused(recordOf(LogRecordType::kCommit, 0, 0, 0)));
  CHECK(refused(recordOf(static_cast<LogRecordType>(7), 0, 0, 0)));
  auto operation = operationOf("a text of more than thirty-two bytes");
  operation.back() = 0;
  operation.resize(operation.size() - 32);
  CHECK(refused(operation));
  operation = operationOf("text");
  operation[33] ^= 1;
  CHECK(refused(operation));
  // The sound one before it is not appended either.
  auto both = recordOf(LogRecordType::kOwn, 1, 2, 0);
  both.insert(both.end(), operation.begin(), operation.end());
  CHECK(refused(both));
  CHECK(log->head() == 0 && walkRing(path, 0).empty());
  CHECK(publish(*log, 1) == 0);
  CHECK(log->trim(1).error().code == "INVALID_ARGUMENT");
  std::vector<uint8_t> taken;
  log->take(taken);
  CHECK(log->trim(1).ok());

  LogEvents other;
  CHECK(MappingLog::open(optionsFor(path, other, 1, 2)).error().code == "INVALID_ARGUMENT");
  CHECK(MappingLog::open(optionsFor(path, other, kRingPlaces + 2, 1)).error().code == "INVALID_ARGUMENT");
  for (const auto& [offset, places] : std::vector<std::pair<uint64_t, uint64_t>>{
           {512, kRingPlaces}, {kRingOffset, kRingPlaces + 1}, {kRingOffset, kRingPlaces / 2}}) {
    MappingLogOptions odd = optionsFor(path, other);
    odd.offset = offset;
    odd.capacityRecords = places;
    CHECK(MappingLog::open(std::move(odd)).error().code == "INVALID_ARGUMENT");
  }
}

TEST("many publish, one takes and trims, one commits: every record is taken once, in order, while the ring wraps") {
  TemporaryFolder folder;
  LogEvents events;
  const std::string path = makeDeviceFile(folder, "device");
  auto log = mustOpen(optionsFor(path, events));
  constexpr uint32_t kThreads = 4;
  constexpr uint64_t kEach = 8'000;
  std::vector<std::thread> threads;
  for (uint32_t thread = 0; thread < kThreads; thread++) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(seed() + thread);
      for (uint64_t i = 0; i < kEach; i++) {
        if (random() % 50 != 0) {
          CHECK(log->publish(LogRecordType::kMap, thread + 1, i, i) == 0);
          continue;
        }
        const std::string text = std::to_string(thread + 1) + " " + std::to_string(i) + std::string(random() % 90, ' ');
        while (!log->append(operationOf(text)).ok()) std::this_thread::yield();
      }
    });
  }
  std::atomic<bool> done{false};
  std::thread committer([&] {
    while (!done) {
      CHECK(log->commit(log->head()).ok());
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  std::vector<uint64_t> next(kThreads + 1, 0);
  uint64_t sequence = 0, covered = 0, records = 0, lastStart = 0;
  bool ordered = true;
  std::vector<uint8_t> taken;
  while (records < kThreads * kEach) {
    log->take(taken);
    const auto walked = LogWalk(taken, false).from(sequence);
    for (const WalkedLogRecord& record : walked) {
      if (record.type == LogRecordType::kCommit) {
        ordered = ordered && record.value >= covered && record.value <= record.sequence;
        covered = record.value;
        continue;
      }
      uint32_t thread = record.layer;
      uint64_t index = record.subject;
      if (record.type == LogRecordType::kOperation) {
        thread = static_cast<uint32_t>(std::stoul(record.text));
        index = std::stoull(record.text.substr(record.text.find(' ')));
      }
      ordered = ordered && thread <= kThreads && next[thread]++ == index;
      records++;
    }
    uint64_t places = 0;
    for (const WalkedLogRecord& record : walked) places += 1 + (record.text.size() + 31) / 32;
    ordered = ordered && places * 32 == taken.size();
    sequence += places;
    if (!ordered) break;
    if (!walked.empty()) lastStart = walked.back().sequence;
    CHECK(log->trim(lastStart).ok());
  }
  CHECK(ordered);
  if (!ordered) log->close();
  for (std::thread& thread : threads) thread.join();
  done = true;
  committer.join();
  CHECK(events.count(Kind::kFailed) == 0);
  const auto last = walkRing(path, lastStart);
  CHECK(!last.empty());
  uint64_t end = lastStart;
  for (const WalkedLogRecord& record : last) end += 1 + (record.text.size() + 31) / 32;
  CHECK(end == log->head());
}

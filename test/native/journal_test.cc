// SPDX-License-Identifier: Apache-2.0
#include "../../native/journal/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "check.h"
#include "segment_walk.h"

using namespace tidemark;
using test::eventually;
using test::segmentBases;
using test::spareCount;
using test::walk;
using test::WalkedRecord;

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr JournalId kId = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

JournalOptions optionsFor(const test::TemporaryFolder& folder) {
  JournalOptions options;
  options.directory = folder.path();
  options.journalId = kId;
  options.segmentBytes = kMiB;
  options.spareSegments = 1;
  options.limitBytes = 64 * kMiB;
  options.incarnation = 1;
  return options;
}

/** Appends one WRITE, from reserve to applied, and gives its LSN; 0 when it was not journaled. */
uint64_t append(Journal& journal, const std::string& payload, uint64_t offset = 0, uint16_t volume = 0) {
  auto reserved = journal.reserve(RecordType::kWrite, volume, offset, payload.size(),
                                  static_cast<uint32_t>(payload.size()));
  CHECK(reserved.ok());
  Reservation reservation = reserved.value();
  if (!reservation.journaled()) return 0;
  std::memcpy(reservation.payload, payload.data(), payload.size());
  CHECK(journal.complete(reservation));
  journal.applied(reservation);
  return reservation.lsn;
}

/** A file that is shorter than its mapping answers the next store as one does whose disk is gone: with SIGBUS. */
void loseSegment(const test::TemporaryFolder& folder, uint64_t baseLsn) {
  char name[32];
  std::snprintf(name, sizeof name, "/%016llx.seg", static_cast<unsigned long long>(baseLsn));
  CHECK(::truncate((folder.path() + name).c_str(), 0) == 0);
}

/** What a journal has said of its end. */
struct Failures {
  std::string code;
  int errnoValue = 0;
  std::atomic<int> count{0};

  std::function<void(const JournalEvent&)> listener() {
    return [this](const JournalEvent& event) {
      if (event.kind != JournalEvent::Kind::kFailed) return;
      code = event.error.code;
      errnoValue = event.error.errnoValue;
      ++count;
    };
  }
};

std::unique_ptr<Journal> mustOpen(JournalOptions options) {
  auto opened = Journal::open(std::move(options));
  if (!opened) std::printf("open: %s %s\n", opened.error().code.c_str(), opened.error().message.c_str());
  CHECK(opened.ok());
  return opened.take();
}

}  // namespace

TEST("a new journal begins at 4096 and its records are found as written") {
  test::TemporaryFolder folder;
  auto journal = mustOpen(optionsFor(folder));
  CHECK(journal->publishedLsn() == 4096);
  CHECK(append(*journal, "hello", 512, 3) == 4096);
  CHECK(append(*journal, std::string(4096, 'x'), 8192, 4) == 4096 + 128);
  auto zero = journal->reserve(RecordType::kZero, 5, 1 << 20, uint64_t{1} << 33, 0);
  CHECK(journal->complete(zero.value()));
  journal->applied(zero.value());
  auto marker = journal->appendMarker("mark", 4);
  CHECK(marker.ok());
  CHECK(journal->syncAndWait().value() == journal->publishedLsn());
  const auto records = walk(folder.path(), kId, kMiB, 0);
  CHECK(records.size() == 4);
  CHECK(records[0].payload == "hello" && records[0].header.offset == 512 && records[0].header.volume == 3);
  CHECK(records[1].payload == std::string(4096, 'x') && records[1].header.length == 4096);
  CHECK(records[2].header.type == 2 && records[2].header.length == uint64_t{1} << 33);
  CHECK(records[2].header.payloadBytes == 0 && records[2].header.volume == 5);
  CHECK(records[3].header.type == 4 && records[3].header.volume == kNoVolume && records[3].payload == "mark");
  for (const WalkedRecord& record : records) CHECK(record.complete && record.payloadSound);
  const JournalCounters counters = journal->counters();
  CHECK(counters.records == 4 && counters.payloadBytes == 4096 + 5);
  CHECK(counters.publishedLsn == counters.durableLsn && counters.durableLsn == counters.appliedLsn);
  CHECK(journal->close().ok());
}

TEST("many threads append, sync and trim while segments roll and are recycled; the rest reads back whole") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  options.limitBytes = 12 * kMiB;
  options.spareSegments = 2;
  auto journal = mustOpen(options);
  constexpr int kThreads = 4;
  constexpr uint64_t kRecords = 1'500;
  std::vector<std::thread> threads;
  std::atomic<bool> stop{false};
  std::atomic<int> badSyncs{0};
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(test::seed() + static_cast<uint64_t>(thread));
      for (uint64_t i = 0; i < kRecords; ++i) {
        const size_t length = random() % 8 == 0 ? random() % 60'000 + 9 : random() % 4096 + 9;
        std::string payload(length, static_cast<char>('a' + thread));
        std::memcpy(payload.data(), &i, sizeof i);
        const uint64_t lsn = append(*journal, payload, i * 512, static_cast<uint16_t>(thread));
        if (i % 50 == 0) {
          auto durable = journal->syncAndWait();
          if (!durable.ok() || durable.value() <= lsn) ++badSyncs;
        }
      }
    });
  }
  // Keeps three segments, so that what is left can be checked against what was written.
  uint64_t trimmedTo = 0;
  std::thread trimmer([&] {
    while (!stop) {
      const uint64_t durable = journal->durableLsn();
      if (durable > 4 * kMiB) {
        trimmedTo = durable / kMiB * kMiB - 3 * kMiB;
        journal->trim(trimmedTo);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  for (std::thread& thread : threads) thread.join();
  stop = true;
  trimmer.join();
  CHECK(badSyncs == 0);
  const uint64_t end = journal->publishedLsn();
  CHECK(journal->syncAndWait().value() == end);
  CHECK(journal->appliedLsn() == end);
  CHECK(journal->counters().records == kThreads * kRecords);
  CHECK(journal->counters().segments <= 12);

  const auto records = walk(folder.path(), kId, kMiB, trimmedTo);
  CHECK(!records.empty());
  const RecordHeader& last = records.back().header;
  CHECK(last.lsn + recordSpace(last.payloadBytes) == end);
  std::map<uint16_t, uint64_t> seen;
  size_t pads = 0;
  bool sound = true;
  bool ordered = true;
  for (const WalkedRecord& record : records) {
    sound = sound && record.complete && record.payloadSound;
    if (record.header.type == 5) {
      ++pads;
      continue;
    }
    uint64_t index = 0;
    std::memcpy(&index, record.payload.data(), sizeof index);
    const uint16_t volume = record.header.volume;
    sound = sound && record.header.offset == index * 512 && record.payload.back() == static_cast<char>('a' + volume);
    if (seen.contains(volume)) ordered = ordered && index == seen[volume] + 1;
    seen[volume] = index;
  }
  CHECK(sound);
  CHECK(ordered);
  CHECK(pads >= 2);
  for (uint16_t thread = 0; thread < kThreads; ++thread) CHECK(!seen.contains(thread) || seen[thread] == kRecords - 1);
  CHECK(journal->close().ok());
}

TEST("a sync waits for an older slow reservation and covers what was acknowledged after it") {
  test::TemporaryFolder folder;
  auto journal = mustOpen(optionsFor(folder));
  auto slow = journal->reserve(RecordType::kWrite, 0, 0, 512, 512).take();
  append(*journal, "acknowledged");
  CHECK(journal->publishedLsn() == slow.lsn);
  std::atomic<uint64_t> durable{0};
  journal->sync([&](uint64_t lsn, const Error* error) {
    CHECK(error == nullptr);
    durable = lsn;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  CHECK(durable == 0);
  std::memset(slow.payload, 7, 512);
  CHECK(journal->complete(slow));
  CHECK(eventually([&] { return durable != 0; }));
  CHECK(durable == journal->publishedLsn());
  CHECK(journal->appliedLsn() == slow.lsn);
  journal->applied(slow);
  CHECK(journal->appliedLsn() == journal->publishedLsn());
  CHECK(journal->close().ok());
}

TEST("a sync with nothing new is answered at once, and many waiting ones share one") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  std::atomic<int> syncs{0};
  std::atomic<bool> slow{false};
  options.system.fdatasync = [&](int fd) {
    ++syncs;
    if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return ::fdatasync(fd);
  };
  auto journal = mustOpen(options);
  bool called = false;
  journal->sync([&](uint64_t lsn, const Error* error) { called = lsn == 4096 && error == nullptr; });
  CHECK(called && syncs == 0);
  append(*journal, "first");
  const int before = syncs;

  slow = true;
  std::atomic<int> answered{0};
  for (int i = 0; i < 40; ++i) {
    append(*journal, "x");
    journal->sync([&](uint64_t, const Error* error) { answered += error == nullptr ? 1 : 0; });
  }
  CHECK(eventually([&] { return answered == 40; }));
  CHECK(syncs - before <= 3 && journal->counters().syncs == static_cast<uint64_t>(syncs - before));
  CHECK(journal->close().ok());
}

TEST("a sync that failed is never tried again: everybody waits until abandon, then is told not journaled") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  std::atomic<bool> broken{false};
  std::atomic<int> failedSyncs{0};
  std::atomic<int> events{0};
  std::string code;
  options.system.fdatasync = [&](int fd) {
    if (!broken) return ::fdatasync(fd);
    ++failedSyncs;
    errno = EIO;
    return -1;
  };
  options.onEvent = [&](const JournalEvent& event) {
    code = event.error.code;
    CHECK(event.kind == JournalEvent::Kind::kFailed && event.error.errnoValue == EIO);
    ++events;
  };
  auto journal = mustOpen(options);
  append(*journal, "first");
  auto held = journal->reserve(RecordType::kWrite, 0, 0, 5, 5).take();
  std::memcpy(held.payload, "again", 5);
  CHECK(journal->complete(held));
  broken = true;
  std::atomic<int> answers{0};
  const auto expectAbandoned = [&](uint64_t lsn, const Error* error) {
    CHECK(lsn == 4096 && error != nullptr && error->code == "JOURNAL_ABANDONED");
    ++answers;
  };
  journal->sync(expectAbandoned);
  CHECK(eventually([&] { return events == 1; }));
  CHECK(code == "JOURNAL_SYNC_FAILED");
  broken = false;  // a later sync would succeed and prove nothing
  journal->sync(expectAbandoned);
  std::atomic<int> skipped{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) threads.emplace_back([&] { skipped += append(*journal, "late") == 0 ? 1 : 0; });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  CHECK(answers == 0 && skipped == 0 && failedSyncs == 1);
  journal->applied(held);
  journal->abandon();
  for (std::thread& thread : threads) thread.join();
  CHECK(answers == 2 && skipped == 2 && events == 1);
  CHECK(append(*journal, "later") == 0);
  CHECK(journal->appendMarker("m", 1).value() == 0);
  CHECK(journal->syncAndWait().error().code == "JOURNAL_ABANDONED");
  CHECK(journal->close().ok());
}

TEST("a record that its segment does not take is on no backing and below no flush: all wait until abandon") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  Failures failures;
  options.onEvent = failures.listener();
  auto journal = mustOpen(options);
  append(*journal, "kept");
  const uint64_t durable = journal->syncAndWait().value();
  auto held = journal->reserve(RecordType::kWrite, 0, 0, 5, 5).take();
  loseSegment(folder, 0);
  std::atomic<bool> onBacking{false};
  std::atomic<uint64_t> later{1};
  std::thread writer([&] {
    auto lost = journal->reserve(RecordType::kWrite, 0, 512, 40'000, 40'000).take();
    std::memset(lost.payload, 'x', 40'000);
    CHECK(journal->complete(lost));
    onBacking = true;
    journal->applied(lost);
  });
  CHECK(eventually([&] { return failures.count == 1; }));
  CHECK(failures.code == "JOURNAL_SEGMENT_FAILED" && failures.errnoValue == EIO);
  std::thread earlier([&] {
    std::memcpy(held.payload, "again", 5);
    CHECK(journal->complete(held));
    journal->applied(held);
  });
  std::thread laterWriter([&] { later = append(*journal, "later"); });
  std::atomic<int> answers{0};
  journal->sync([&](uint64_t lsn, const Error* error) {
    CHECK(lsn == durable && error != nullptr && error->code == "JOURNAL_ABANDONED");
    ++answers;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(!onBacking && later == 1 && answers == 0);
  CHECK(journal->publishedLsn() == durable && journal->durableLsn() == durable);
  journal->abandon();
  writer.join();
  earlier.join();
  laterWriter.join();
  CHECK(onBacking && later == 0 && answers == 1 && failures.count == 1);
  CHECK(journal->durableLsn() == durable);
  CHECK(journal->close().ok());
}

TEST("a journal whose segment is lost and that refuses fails the write before the backing has it") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  Failures failures;
  options.onEvent = failures.listener();
  auto journal = mustOpen(options);
  append(*journal, "kept");
  auto lost = journal->reserve(RecordType::kWrite, 0, 0, 5, 5).take();
  loseSegment(folder, 0);
  std::memcpy(lost.payload, "again", 5);
  std::atomic<bool> refused{false};
  std::thread writer([&] {
    refused = !journal->complete(lost);
    journal->applied(lost);
  });
  CHECK(eventually([&] { return failures.count == 1; }));
  CHECK(!refused);
  journal->refuse(true);
  writer.join();
  CHECK(refused);
  CHECK(journal->appendMarker("m", 1).error().code == "JOURNAL_FAILED");
  CHECK(journal->syncAndWait().error().code == "JOURNAL_FAILED");
  CHECK(journal->close().error().code == "JOURNAL_SEGMENT_FAILED");
}

TEST("behind a record whose header went nowhere no place is given out, before its writer knows") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  Failures failures;
  options.onEvent = failures.listener();
  auto journal = mustOpen(options);
  append(*journal, "kept");
  loseSegment(folder, 0);
  auto lost = journal->reserve(RecordType::kTrim, 0, 0, 512, 0).take();
  std::atomic<uint64_t> lsn{1};
  std::thread writer([&] { lsn = append(*journal, "behind"); });
  CHECK(eventually([&] { return failures.count == 1; }));
  CHECK(lsn == 1);
  journal->abandon();
  writer.join();
  CHECK(lsn == 0 && journal->complete(lost));
  journal->applied(lost);
  CHECK(journal->close().ok());
}

TEST("behind a pad that went nowhere no place is given out, in the next segment neither") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  Failures failures;
  options.onEvent = failures.listener();
  auto journal = mustOpen(options);
  append(*journal, std::string(600'000, 'a'));
  const uint64_t durable = journal->syncAndWait().value();
  CHECK(eventually([&] { return segmentBases(folder.path()).size() == 2; }));
  loseSegment(folder, 0);
  std::atomic<uint64_t> lsn{1};
  std::thread writer([&] { lsn = append(*journal, std::string(600'000, 'b')); });
  CHECK(eventually([&] { return failures.count == 1; }));
  CHECK(lsn == 1);
  CHECK(journal->publishedLsn() == durable);
  journal->abandon();
  writer.join();
  CHECK(lsn == 0);
  CHECK(journal->close().ok());
}

TEST("a segment that breaks while it is synced is not durable, whatever the disk says") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  Failures failures;
  std::atomic<bool> losing{false};
  std::unique_ptr<Journal> journal;
  Reservation next;
  options.onEvent = failures.listener();
  options.system.fdatasync = [&](int fd) {
    if (losing.exchange(false)) {
      next = journal->reserve(RecordType::kWrite, 0, 0, 512, 512).take();
      loseSegment(folder, 0);
      std::memset(next.payload, 'x', 512);
    }
    return ::fdatasync(fd);
  };
  journal = mustOpen(options);
  append(*journal, "published");
  const uint64_t published = journal->publishedLsn();
  std::atomic<int> answers{0};
  losing = true;
  journal->sync([&](uint64_t lsn, const Error* error) {
    CHECK(lsn < published && error != nullptr && error->code == "JOURNAL_ABANDONED");
    ++answers;
  });
  CHECK(eventually([&] { return failures.count == 1; }));
  CHECK(answers == 0 && journal->durableLsn() < published);
  journal->abandon();
  CHECK(answers == 1 && journal->complete(next));
  journal->applied(next);
  CHECK(journal->close().ok());
}

TEST("a full journal says so once, and a trim lets the writer go on in a recycled segment") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  options.limitBytes = 3 * kMiB;
  std::atomic<int> full{0};
  options.onEvent = [&](const JournalEvent& event) { full += event.kind == JournalEvent::Kind::kFull ? 1 : 100; };
  auto journal = mustOpen(options);
  std::atomic<int> written{0};
  std::thread writer([&] {
    for (int i = 0; i < 20; ++i) {
      append(*journal, std::string(300'000, 'w'));
      ++written;
    }
  });
  for (int round = 1; written < 20; ++round) {
    if (!eventually([&] { return full == round || written == 20; })) break;
    if (written == 20) break;
    CHECK(journal->counters().segments == 3);
    const uint64_t durable = journal->syncAndWait().value();
    journal->trim(durable);
  }
  writer.join();
  CHECK(written == 20 && full >= 2);
  CHECK(segmentBases(folder.path()).size() + spareCount(folder.path()) <= 3);
  CHECK(journal->close().ok());
}

TEST("abandoning a full journal lets the waiting writer go") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  options.limitBytes = 2 * kMiB;
  std::atomic<int> full{0};
  options.onEvent = [&](const JournalEvent&) { ++full; };
  auto journal = mustOpen(options);
  std::atomic<bool> skipped{false};
  std::thread writer([&] {
    while (append(*journal, std::string(100'000, 'w')) != 0) continue;
    skipped = true;
  });
  CHECK(eventually([&] { return full == 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(!skipped);
  journal->abandon();
  writer.join();
  CHECK(skipped && full == 1);
  CHECK(journal->close().ok());
}

TEST("a full journal that refuses fails whoever waits and whoever comes, takes writes once there is room, and syncs") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  options.limitBytes = 2 * kMiB;
  std::atomic<int> full{0};
  options.onEvent = [&](const JournalEvent&) { ++full; };
  auto journal = mustOpen(options);
  const auto write = [&]() -> std::string {
    auto reserved = journal->reserve(RecordType::kWrite, 0, 0, 98'304, 98'304);
    if (!reserved) return reserved.error().code;
    CHECK(journal->complete(reserved.value()));
    journal->applied(reserved.value());
    return "";
  };
  const auto refuseWhoWaits = [&](int times) {
    std::string last;
    std::thread writer([&] { while ((last = write()).empty()) continue; });
    CHECK(eventually([&] { return full == times; }));
    journal->refuse(true);
    writer.join();
    CHECK(last == "JOURNAL_FULL" && write() == "JOURNAL_FULL");
  };
  refuseWhoWaits(1);
  journal->trim(journal->syncAndWait().value());
  CHECK(eventually([&] { return write().empty(); }));
  journal->refuse(false);
  refuseWhoWaits(2);
  CHECK(journal->close().ok());
}

TEST("who waits for a full journal is told of again when it refuses no more") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  options.limitBytes = 2 * kMiB;
  std::atomic<int> full{0};
  options.onEvent = [&](const JournalEvent&) { ++full; };
  auto journal = mustOpen(options);
  std::thread writer([&] {
    while (append(*journal, std::string(100'000, 'w')) != 0) continue;
  });
  CHECK(eventually([&] { return full == 1; }));
  // Once for each answer, and not before it.
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(full == 1);
  journal->refuse(false);
  CHECK(eventually([&] { return full == 2; }));
  journal->abandon();
  writer.join();
  CHECK(full == 2);
  CHECK(journal->close().ok());
}

TEST("a failed journal that refuses answers writers and syncs with an error, also those that wait already") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  std::atomic<int> failures{0};
  std::atomic<bool> broken{false};
  options.system.fdatasync = [&](int fd) {
    if (!broken) return ::fdatasync(fd);
    errno = EIO;
    return -1;
  };
  options.onEvent = [&](const JournalEvent&) { ++failures; };
  auto journal = mustOpen(options);
  append(*journal, "kept");
  broken = true;
  std::string answer;
  std::thread syncer([&] { answer = journal->syncAndWait().error().code; });
  CHECK(eventually([&] { return failures == 1; }));
  std::string waited;
  std::thread writer([&] { waited = journal->reserve(RecordType::kTrim, 0, 0, 4096, 0).error().code; });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  journal->refuse(true);
  syncer.join();
  writer.join();
  CHECK(answer == "JOURNAL_FAILED" && waited == "JOURNAL_FAILED");
  CHECK(journal->syncAndWait().error().code == "JOURNAL_FAILED");
  CHECK(!journal->close().ok());
}

TEST("a full disk is told only when a writer needs the segment") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  std::atomic<bool> noSpace{false};
  std::atomic<int> attempts{0};
  std::atomic<int> failures{0};
  options.system.allocate = [&](int fd, uint64_t bytes) {
    if (!noSpace) return ::fallocate(fd, 0, 0, static_cast<off_t>(bytes));
    ++attempts;
    errno = ENOSPC;
    return -1;
  };
  options.onEvent = [&](const JournalEvent& event) {
    CHECK(event.kind == JournalEvent::Kind::kFailed && event.error.code == "JOURNAL_NO_SPACE");
    CHECK(event.error.errnoValue == ENOSPC);
    ++failures;
  };
  auto journal = mustOpen(options);
  for (int i = 0; i < 2; ++i) append(*journal, std::string(400'000, 'w'));
  CHECK(eventually([&] { return segmentBases(folder.path()).size() == 2; }));
  noSpace = true;
  for (int i = 0; i < 2; ++i) append(*journal, std::string(400'000, 'w'));  // into the second segment
  CHECK(eventually([&] { return attempts >= 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(failures == 0 && attempts == 1);
  std::thread writer([&] {
    while (append(*journal, std::string(400'000, 'w')) != 0) continue;
  });
  CHECK(eventually([&] { return failures == 1; }));
  journal->abandon();
  writer.join();
  CHECK(journal->close().ok() && failures == 1);
}

TEST("a segment whose first sync fails is given up, not used") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  std::atomic<bool> broken{false};
  std::atomic<int> failures{0};
  options.system.fdatasync = [&](int fd) {
    if (!broken) return ::fdatasync(fd);
    errno = EIO;
    return -1;
  };
  options.onEvent = [&](const JournalEvent& event) { failures += event.error.code == "JOURNAL_SEGMENT_FAILED" ? 1 : 100; };
  auto journal = mustOpen(options);
  for (int i = 0; i < 2; ++i) append(*journal, std::string(400'000, 'w'));
  CHECK(eventually([&] { return segmentBases(folder.path()).size() == 2; }));
  broken = true;
  std::thread writer([&] {
    while (append(*journal, std::string(400'000, 'w')) != 0) continue;
  });
  CHECK(eventually([&] { return failures == 1; }));
  CHECK(segmentBases(folder.path()).size() == 2);
  journal->abandon();
  writer.join();
  CHECK(journal->close().ok());
}

TEST("closing a failed journal says why, and waiting appenders are told it is closed") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  std::atomic<bool> broken{false};
  options.system.fdatasync = [&](int fd) {
    if (!broken) return ::fdatasync(fd);
    errno = EIO;
    return -1;
  };
  auto journal = mustOpen(options);
  append(*journal, "x");
  broken = true;
  const auto closed = journal->close();
  CHECK(!closed.ok() && closed.error().code == "JOURNAL_SYNC_FAILED");
  CHECK(journal->reserve(RecordType::kTrim, 0, 0, 512, 0).error().code == "JOURNAL_CLOSED");
}

TEST("a journal goes on where it was closed, and what lies beyond the start is never read again") {
  test::TemporaryFolder folder;
  auto journal = mustOpen(optionsFor(folder));
  const uint64_t first = append(*journal, std::string(1000, 'a'));
  const uint64_t cut = append(*journal, std::string(1000, 'b'));
  const uint64_t torn = append(*journal, std::string(1000, 'c'));
  for (int i = 0; i < 3; ++i) append(*journal, std::string(500'000, 'd'));  // into the next segment
  CHECK(journal->close().ok());
  journal.reset();
  CHECK(walk(folder.path(), kId, kMiB, 0).size() > 5);

  // As after a power cut that lost the second record: the third one, complete, still lies there.
  auto options = optionsFor(folder);
  options.startLsn = cut;
  options.incarnation = 2;
  journal = mustOpen(options);
  CHECK(walk(folder.path(), kId, kMiB, 0).size() == 1);
  CHECK(append(*journal, std::string(1000, 'B')) == cut);
  auto records = walk(folder.path(), kId, kMiB, 0);
  CHECK(records.size() == 2 && records[0].header.lsn == first && records[1].payload[0] == 'B');
  CHECK(records[1].header.lsn + recordSpace(1000) == torn);
  // The segment that was beyond comes back under the same name, with the old records in it.
  for (int i = 0; i < 3; ++i) append(*journal, std::string(500'000, 'D'));
  CHECK(journal->syncAndWait().ok());
  records = walk(folder.path(), kId, kMiB, 0);
  CHECK(records.size() == 6 && records[4].header.type == 5 && records[5].payload[0] == 'D');
  CHECK(journal->close().ok());
}

TEST("a record that fills its segment exactly needs no PAD, and the journal opens at the boundary") {
  test::TemporaryFolder folder;
  auto journal = mustOpen(optionsFor(folder));
  CHECK(journal->payloadLimitBytes() == kMiB - 4096 - 64);
  CHECK(append(*journal, std::string(journal->payloadLimitBytes(), 'f')) == 4096);
  CHECK(journal->publishedLsn() == kMiB + 4096);
  CHECK(journal->syncAndWait().value() == kMiB + 4096);
  const auto tooLarge = journal->reserve(RecordType::kWrite, 0, 0, kMiB, kMiB);
  CHECK(tooLarge.error().code == "JOURNAL_RECORD_TOO_LARGE");
  CHECK(journal->close().ok());
  journal.reset();
  for (const uint64_t start : {kMiB, kMiB + 4096}) {
    auto options = optionsFor(folder);
    options.startLsn = start;
    options.incarnation = start == kMiB ? 2 : 3;
    journal = mustOpen(options);
    CHECK(journal->publishedLsn() == kMiB + 4096);
    CHECK(append(*journal, "second segment") == kMiB + 4096);
    const auto records = walk(folder.path(), kId, kMiB, 0);
    CHECK(records.size() == 2 && records[1].payload == "second segment");
    CHECK(journal->close().ok());
    journal.reset();
  }
}

TEST("a journal opens at the start of a segment whose file is gone, and makes it") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  options.startLsn = 7 * kMiB + 4096;
  auto journal = mustOpen(options);
  CHECK(append(*journal, "x") == 7 * kMiB + 4096);
  CHECK(segmentBases(folder.path()).front() == 7 * kMiB);
  CHECK(journal->close().ok());
}

TEST("a journal takes disk as it is used: none, a segment, the next one from half on, and gives back what nobody takes") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  options.spareSegments = 2;
  options.idleMilliseconds = 500;
  auto journal = mustOpen(options);
  const auto files = [&] { return segmentBases(folder.path()).size() + spareCount(folder.path()); };
  CHECK(journal->syncAndWait().value() == 4096);
  CHECK(files() == 0);
  append(*journal, std::string(400'000, 'a'));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(files() == 1);
  append(*journal, std::string(400'000, 'b'));
  CHECK(eventually([&] { return files() == 2; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  CHECK(files() == 2);
  // Filled within ten seconds: as many as were asked for are ready.
  append(*journal, std::string(400'000, 'c'));
  CHECK(eventually([&] { return files() == 4; }));
  CHECK(eventually([&] { return files() == 2; }));
  for (const char letter : {'d', 'e', 'f', 'g'}) append(*journal, std::string(400'000, letter));
  CHECK(journal->syncAndWait().ok());
  journal->trim(journal->durableLsn());
  CHECK(eventually([&] { return files() <= 2; }));
  CHECK(eventually([&] { return segmentBases(folder.path()).front() == 3 * kMiB; }));
  append(*journal, "end");
  CHECK(journal->close().ok());
  const auto records = walk(folder.path(), kId, kMiB, 3 * kMiB);
  CHECK(records.size() == 2 && records[0].payload[0] == 'g' && records[1].payload == "end");
}

TEST("a journal that refuses to wait and was never written takes a write as soon as its first segment is made") {
  test::TemporaryFolder folder;
  auto journal = mustOpen(optionsFor(folder));
  journal->refuse(true);
  const auto refused = journal->reserve(RecordType::kWrite, 0, 0, 5, 5);
  CHECK(!refused.ok() && refused.error().code == "JOURNAL_FULL");
  const auto written = [&] {
    auto reserved = journal->reserve(RecordType::kWrite, 0, 0, 0, 0);
    if (!reserved.ok()) return false;
    Reservation reservation = reserved.take();
    CHECK(journal->complete(reservation));
    journal->applied(reservation);
    return reservation.lsn == 4096;
  };
  CHECK(eventually(written));
  CHECK(journal->close().ok());
}

TEST("a spare that holds records of the very segment it becomes is no part of it") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  auto journal = mustOpen(options);
  append(*journal, "of an earlier writer");
  CHECK(journal->close().ok());
  journal.reset();
  CHECK(::rename((folder.path() + "/0000000000000000.seg").c_str(), (folder.path() + "/spare-0.seg").c_str()) == 0);
  options.incarnation = 2;
  journal = mustOpen(options);
  auto held = journal->reserve(RecordType::kWrite, 0, 0, 5, 5).take();
  CHECK(spareCount(folder.path()) == 0);
  const auto records = walk(folder.path(), kId, kMiB, 0);
  CHECK(records.size() == 1 && !records[0].complete && records[0].header.incarnation == 2);
  CHECK(journal->complete(held));
  journal->applied(held);
  CHECK(journal->close().ok());
}

TEST("a reserved record has a valid header and no commit, also on a place that held a complete one") {
  test::TemporaryFolder folder;
  auto journal = mustOpen(optionsFor(folder));
  append(*journal, std::string(100, 'a'));
  const uint64_t second = append(*journal, std::string(100, 'b'));
  CHECK(journal->close().ok());
  journal.reset();
  auto options = optionsFor(folder);
  options.startLsn = second;
  options.incarnation = 2;
  journal = mustOpen(options);
  auto reservation = journal->reserve(RecordType::kWrite, 0, 0, 100, 100).take();
  const auto records = walk(folder.path(), kId, kMiB, 0);
  CHECK(records.size() == 2 && records[0].complete && !records[1].complete);
  CHECK(records[1].header.payloadBytes == 100 && records[1].header.incarnation == 2);
  CHECK(journal->complete(reservation));
  journal->applied(reservation);
  CHECK(journal->close().ok());
}

TEST("no more than the limit of records is in flight; the next writer waits for the oldest to be applied") {
  test::TemporaryFolder folder;
  auto journal = mustOpen(optionsFor(folder));
  std::vector<Reservation> held;
  for (uint32_t i = 0; i < kJournalInFlightLimit; ++i) {
    held.push_back(journal->reserve(RecordType::kTrim, 0, i, 512, 0).take());
    CHECK(journal->complete(held.back()));
  }
  std::atomic<bool> went{false};
  std::thread writer([&] {
    append(*journal, "next");
    went = true;
  });
  for (uint32_t i = 1; i < kJournalInFlightLimit; ++i) journal->applied(held[i]);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(!went && journal->appliedLsn() == held[0].lsn);
  journal->applied(held[0]);
  writer.join();
  CHECK(went && journal->appliedLsn() == journal->publishedLsn());
  CHECK(journal->close().ok());
}

TEST("a trim never goes past what is durable and applied") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  auto journal = mustOpen(options);
  auto unapplied = journal->reserve(RecordType::kWrite, 0, 0, 8, 8).take();
  CHECK(journal->complete(unapplied));
  for (int i = 0; i < 6; ++i) append(*journal, std::string(500'000, 'd'));
  journal->trim(UINT64_MAX);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(segmentBases(folder.path()).front() == 0);
  journal->applied(unapplied);
  journal->trim(UINT64_MAX);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(segmentBases(folder.path()).front() == 0);
  CHECK(journal->syncAndWait().ok());
  journal->trim(UINT64_MAX);
  CHECK(eventually([&] { return segmentBases(folder.path()).front() == 2 * kMiB; }));
  CHECK(journal->close().ok());
}

TEST("a busy journal recycles as many segments as it needs from trim to trim, and gives them back when nobody takes them") {
  test::TemporaryFolder folder;
  auto options = optionsFor(folder);
  options.limitBytes = 16 * kMiB;
  options.idleMilliseconds = 1000;
  std::atomic<int> made{0};
  std::atomic<uint64_t> room{uint64_t{1} << 40};
  options.system.roomBytes = [&](int) { return room.load(); };
  options.system.allocate = [&](int fd, uint64_t bytes) {
    ++made;
    return ::fallocate(fd, 0, 0, static_cast<off_t>(bytes));
  };
  auto journal = mustOpen(options);
  const auto fill = [&](int records) {
    for (int i = 0; i < records; ++i) append(*journal, std::string(500'000, 'd'));
    const uint64_t durable = journal->syncAndWait().value();
    journal->trim(durable);
  };
  // 16 such records take 8 segments. Behind them one is open and one is ready, and 7 or 8 have come back.
  for (int i = 0; i < 5; ++i) {
    fill(16);
    CHECK(eventually([&] { return spareCount(folder.path()) >= 7; }));
  }
  CHECK(made <= 10);
  for (int i = 0; i < 4; ++i) fill(4);
  CHECK(eventually([&] { return spareCount(folder.path()) <= 2; }));
  // Others need what room there is.
  room = uint64_t{1} << 30;
  for (int i = 0; i < 2; ++i) fill(16);
  CHECK(eventually([&] { return spareCount(folder.path()) == 1; }));
  CHECK(eventually([&] { return spareCount(folder.path()) == 0 && journal->counters().segments == 2; }));
  CHECK(journal->close().ok());
}

TEST("segments of another journal, damaged ones and bad options are refused") {
  test::TemporaryFolder folder;
  {
    auto journal = mustOpen(optionsFor(folder));
    append(*journal, "x");
    CHECK(journal->close().ok());
  }
  auto options = optionsFor(folder);
  options.journalId[0] ^= 1;
  CHECK(Journal::open(options).error().code == "FOREIGN_SEGMENT");
  {
    std::fstream file(folder.path() + "/0000000000000000.seg", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(9);
    file.put('x');
  }
  CHECK(Journal::open(optionsFor(folder)).error().code == "JOURNAL_DAMAGED");
  const auto refused = [&](auto change) {
    auto bad = optionsFor(folder);
    change(bad);
    return Journal::open(bad).error().code == "INVALID_ARGUMENT";
  };
  CHECK(refused([](JournalOptions& o) { o.segmentBytes = kMiB + 512; }));
  CHECK(refused([](JournalOptions& o) { o.segmentBytes = 0; }));
  CHECK(refused([](JournalOptions& o) { o.spareSegments = 0; }));
  CHECK(refused([](JournalOptions& o) { o.limitBytes = kMiB; }));
  CHECK(refused([](JournalOptions& o) { o.startLsn = 4100; }));
  CHECK(refused([](JournalOptions& o) { o.startLsn = 64; }));
  options.directory = folder.path() + "/absent";
  CHECK(Journal::open(options).error().errnoValue == ENOENT);
}

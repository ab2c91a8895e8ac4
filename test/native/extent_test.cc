// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "../../native/extent/extent_table.h"
#include "../../native/extent/fault_queue.h"
#include "../../native/extent/range_lock.h"
#include "check.h"

using namespace tidemark;

namespace {

constexpr uint64_t kTiB = uint64_t{1} << 40;
constexpr uint32_t kBlock = 64 * 1024;

constexpr int64_t kNothing = -1;

/** All leaves loaded, nothing mapped. */
std::unique_ptr<ExtentTable> makeTable(uint64_t blocks) {
  auto table = ExtentTable::mapped(blocks * kBlock, kBlock).take();
  for (uint64_t leaf = 0; leaf * kLeafBlocks < blocks; ++leaf) table->loadLeaf(leaf, {});
  return table;
}

int64_t entryOf(uint64_t location, bool writable) { return static_cast<int64_t>(location * 2 + (writable ? 1 : 0)); }

}  // namespace

TEST("a linear table maps everything to itself, in one run") {
  const auto table = ExtentTable::linear(1000 * 512);
  const ExtentRun run = table->runAt(512, 999 * 512);
  CHECK(run.known && run.mapped && run.writable && run.backingOffset == 512 && run.length == 999 * 512);
}

TEST("a 16 TiB table begins unknown and holds what is loaded and installed at both ends") {
  auto made = ExtentTable::mapped(16 * kTiB, kBlock);
  CHECK(made.ok());
  const auto table = made.take();
  const uint64_t last = table->blockCount() - 1;
  CHECK(table->blockCount() == 16 * kTiB / kBlock);
  CHECK(!table->lookup(0).known && !table->lookup(last).known);
  CHECK(table->loadLeaf(last / kLeafBlocks, {}));
  CHECK((table->lookup(last) == Extent{true, false, false, 0}));
  const Extent extent{true, true, true, kExtentLocationLimit - 1};
  table->install(last, extent);
  CHECK(table->lookup(last) == extent);
  std::vector<int64_t> entries(kLeafBlocks, kNothing);
  entries[0] = entryOf(7, false);
  entries[kLeafBlocks - 1] = entryOf(kExtentLocationLimit - 1, true);
  CHECK(table->loadLeaf(0, entries));
  CHECK((table->lookup(0) == Extent{true, true, false, 7}));
  CHECK((table->lookup(1) == Extent{true, false, false, 0}));
  CHECK((table->lookup(kLeafBlocks - 1) == Extent{true, true, true, kExtentLocationLimit - 1}));
  CHECK(!table->lookup(kLeafBlocks).known);
}

TEST("a leaf is loaded once: what came later in the table is not undone by an answer from before") {
  const auto table = makeTable(2 * kLeafBlocks);
  table->install(5, Extent{true, true, true, 9});
  const std::vector<int64_t> stale(kLeafBlocks, entryOf(3, true));
  CHECK(!table->loadLeaf(0, stale));
  CHECK((table->lookup(5) == Extent{true, true, true, 9}) && !table->lookup(6).mapped);
}

TEST("raising the generation takes the writability of all entries and nothing else") {
  const auto table = makeTable(3 * kLeafBlocks);
  table->install(1, Extent{true, true, true, 11});
  table->install(kLeafBlocks + 1, Extent{true, true, true, 12});
  table->raiseGeneration();
  CHECK((table->lookup(1) == Extent{true, true, false, 11}));
  CHECK((table->lookup(kLeafBlocks + 1) == Extent{true, true, false, 12}));
  CHECK(!table->runAt(kBlock, kBlock).writable);
  table->install(1, Extent{true, true, true, 13});
  CHECK((table->lookup(1) == Extent{true, true, true, 13}));
  CHECK((table->lookup(kLeafBlocks + 1) == Extent{true, true, false, 12}));
}

TEST("when generations begin again nothing that was writable long ago comes back to life") {
  const auto table = makeTable(2);
  table->install(0, Extent{true, true, true, 5});
  for (uint32_t i = 0; i < kGenerationLimit / 2; ++i) table->raiseGeneration();
  table->install(1, Extent{true, true, true, 6});
  // The generation of the first entry, then that of the second.
  for (uint32_t i = kGenerationLimit / 2; i < kGenerationLimit; ++i) table->raiseGeneration();
  CHECK((table->lookup(0) == Extent{true, true, false, 5}) && !table->lookup(1).writable);
  for (uint32_t i = 0; i < kGenerationLimit / 2; ++i) table->raiseGeneration();
  CHECK((table->lookup(1) == Extent{true, true, false, 6}));
  table->install(1, Extent{true, true, true, 7});
  CHECK((table->lookup(1) == Extent{true, true, true, 7}));
}

TEST("a run passes over leaves that hold nothing or are unknown, and an empty TiB takes no time") {
  const uint64_t blocks = kTiB / kBlock;
  const auto table = ExtentTable::mapped(kTiB, kBlock).take();
  const ExtentRun unknown = table->runAt(0, kTiB);
  CHECK(!unknown.known && unknown.length == kTiB);
  for (uint64_t leaf = 0; leaf * kLeafBlocks < blocks; ++leaf) table->loadLeaf(leaf, {});
  const auto began = std::chrono::steady_clock::now();
  CHECK(table->runAt(0, kTiB).length == kTiB);
  table->clear(0, blocks);
  const auto took = std::chrono::steady_clock::now() - began;
  CHECK(took < std::chrono::milliseconds(20));
  table->install(5 * kLeafBlocks + 3, Extent{true, true, true, 1});
  CHECK(table->runAt(512, kTiB - 512).length == (5 * kLeafBlocks + 3) * kBlock - 512);
  // Emptied again, the leaf is passed over like the others.
  table->clear(5 * kLeafBlocks, 10);
  CHECK(table->runAt(0, kTiB).length == kTiB);
}

TEST("a clear makes what lies wholly inside known, whatever it held") {
  const auto table = ExtentTable::mapped(4 * kLeafBlocks * kBlock, kBlock).take();
  const std::vector<int64_t> full(kLeafBlocks, entryOf(1, true));
  table->loadLeaf(0, full);
  table->loadLeaf(3, full);
  table->clear(kLeafBlocks - 1, kLeafBlocks * 2 + 2);
  CHECK(table->lookup(kLeafBlocks - 2).mapped && !table->lookup(kLeafBlocks - 1).mapped);
  CHECK(table->lookup(kLeafBlocks).known && !table->lookup(kLeafBlocks).mapped);
  CHECK(table->lookup(3 * kLeafBlocks - 1).known);
  CHECK(!table->lookup(3 * kLeafBlocks).mapped && table->lookup(3 * kLeafBlocks + 1).mapped);
  CHECK(!table->loadLeaf(1, full));
}

TEST("a table grows into what is unknown, and forgets what is cut off") {
  const auto table = ExtentTable::mapped(100 * kBlock + 512, kBlock).take();
  CHECK(table->blockCount() == 101);
  std::vector<int64_t> full(kLeafBlocks, entryOf(1, true));
  table->loadLeaf(0, full);
  table->resize(3 * kLeafBlocks * kBlock);
  CHECK(table->lookup(100).mapped && table->lookup(101).known && !table->lookup(101).mapped);
  CHECK(!table->lookup(kLeafBlocks).known && table->runAt(0, 3 * kLeafBlocks * kBlock).length == kBlock);
  table->loadLeaf(1, full);
  table->loadLeaf(2, full);
  table->resize(kLeafBlocks * kBlock + 512);
  CHECK(table->blockCount() == kLeafBlocks + 1 && table->sizeBytes() == kLeafBlocks * kBlock + 512);
  table->resize(3 * kLeafBlocks * kBlock);
  CHECK(table->lookup(kLeafBlocks).mapped && !table->lookup(kLeafBlocks + 1).mapped);
  CHECK(!table->lookup(2 * kLeafBlocks).known);
  table->resize(table->capacityBytes());
  CHECK(!table->lookup(table->blockCount() - 1).known);
}

TEST("bad table sizes are refused") {
  CHECK(!ExtentTable::mapped(0, kBlock).ok());
  CHECK(!ExtentTable::mapped(1 << 20, 1000).ok());
  CHECK(!ExtentTable::mapped(1 << 20, 256).ok());
}

TEST("runs join blocks that are alike and next to each other, and nothing else") {
  const auto table = ExtentTable::mapped((kLeafBlocks + 8) * kBlock, kBlock).take();
  table->loadLeaf(0, {});
  for (uint64_t block = 0; block < 4; ++block) table->install(block, Extent{true, true, true, 100 + block});
  table->install(4, Extent{true, true, true, 200});
  table->install(5, Extent{true, true, false, 201});
  table->install(6, Extent{true, false, false, 0});
  table->install(7, Extent{true, false, false, 0});
  const ExtentRun first = table->runAt(512, 8 * kBlock);
  CHECK(first.length == 4 * kBlock - 512 && first.backingOffset == 100ull * kBlock + 512 && first.writable);
  CHECK(table->runAt(4 * kBlock, 8 * kBlock).length == kBlock);
  const ExtentRun frozen = table->runAt(5 * kBlock, 8 * kBlock);
  CHECK(frozen.length == kBlock && frozen.mapped && !frozen.writable);
  const ExtentRun hole = table->runAt(6 * kBlock, 8 * kBlock);
  CHECK(hole.length == 8 * kBlock && hole.known && !hole.mapped);
  table->install(kLeafBlocks - 1, Extent{true, true, true, 300});
  CHECK(table->runAt(6 * kBlock, kLeafBlocks * kBlock).length == (kLeafBlocks - 7) * kBlock);
  const ExtentRun unknown = table->runAt(kLeafBlocks * kBlock, 8 * kBlock);
  CHECK(unknown.length == 8 * kBlock && !unknown.known);
  CHECK(table->runAt(2 * kBlock, 512).length == 512);
}

TEST("a lookup beside an install sees the whole old or the whole new entry") {
  const auto table = makeTable(1);
  const Extent one{true, true, true, 0x123456789a};
  const Extent two{true, true, false, 0xfedcba9876};
  table->install(0, one);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int i = 0; i < 50'000; ++i) table->install(0, i % 2 == 0 ? two : one);
    stop = true;
  });
  bool whole = true;
  while (!stop) {
    const Extent seen = table->lookup(0);
    whole = whole && (seen == one || seen == two);
  }
  writer.join();
  CHECK(whole);
}

TEST("a fault is raised once for many requests and resumes them all") {
  const auto table = makeTable(16);
  int calls = 0;
  FaultQueue queue(*table, nullptr, [&] { ++calls; });
  ParkedRequest a;
  ParkedRequest b;
  const Fault fault{3, FaultKind::kWrite, false};
  CHECK(queue.park(a, std::span(&fault, 1)));
  CHECK(queue.park(b, std::span(&fault, 1)));
  CHECK(calls == 1 && queue.raisedCount() == 1 && queue.parkedCount() == 2);
  std::vector<Fault> batch;
  CHECK(!queue.takeBatch(batch));
  CHECK(batch.size() == 1 && batch[0].block == 3 && batch[0].kind == FaultKind::kWrite);
  CHECK(!queue.takeBatch(batch) && batch.size() == 1);

  table->install(3, Extent{true, true, true, 9});
  std::vector<ParkedRequest*> resume;
  const uint64_t block = 3;
  queue.granted(std::span(&block, 1), resume);
  CHECK(resume.size() == 2 && resume[0] == &a && resume[1] == &b && a.errnoValue == 0);
  CHECK(queue.parkedCount() == 0);
}

TEST("a request waits for all its blocks, and a refusal of one fails it") {
  const auto table = makeTable(16);
  FaultQueue queue(*table, nullptr, [] {});
  ParkedRequest request;
  const Fault faults[] = {{1, FaultKind::kWrite, true}, {2, FaultKind::kWrite, true}};
  CHECK(queue.park(request, faults));
  std::vector<Fault> batch;
  queue.takeBatch(batch);
  std::vector<ParkedRequest*> resume;
  const uint64_t blocks[] = {1, 2};
  queue.refused(std::span(blocks, 1), ENOSPC, resume);
  CHECK(resume.empty());
  table->install(2, Extent{true, true, true, 5});
  queue.granted(std::span(blocks + 1, 1), resume);
  CHECK(resume.size() == 1 && request.errnoValue == ENOSPC);
}

TEST("an answer that does not help is raised again, and nobody waits for ever") {
  const auto table = makeTable(16);
  int calls = 0;
  FaultQueue queue(*table, nullptr, [&] { ++calls; });
  ParkedRequest writer;
  const Fault write{7, FaultKind::kWrite, false};
  CHECK(queue.park(writer, std::span(&write, 1)));
  std::vector<Fault> batch;
  queue.takeBatch(batch);
  CHECK(batch.size() == 1 && calls == 1);
  table->install(7, Extent{true, true, false, 5});
  std::vector<ParkedRequest*> resume;
  const uint64_t block = 7;
  queue.granted(std::span(&block, 1), resume);
  CHECK(resume.empty() && calls == 2 && queue.raisedCount() == 2);
  // Not twice while nobody has taken it.
  queue.granted(std::span(&block, 1), resume);
  CHECK(resume.empty() && calls == 2 && queue.raisedCount() == 2);
  queue.takeBatch(batch);
  CHECK(batch.size() == 2 && batch[1].block == 7 && batch[1].kind == FaultKind::kWrite);
  table->install(7, Extent{true, true, true, 5});
  queue.granted(std::span(&block, 1), resume);
  CHECK(resume.size() == 1 && resume[0] == &writer && queue.parkedCount() == 0);
}

TEST("a leaf is asked for once, answered by being loaded, and asked for again when it was not") {
  const auto table = ExtentTable::mapped(3 * kLeafBlocks * kBlock, kBlock).take();
  FaultQueue queue(*table, nullptr, [] {});
  ParkedRequest reader;
  ParkedRequest other;
  const Fault read{kLeafBlocks, FaultKind::kReadUnknown, false};
  CHECK(queue.park(reader, std::span(&read, 1)));
  CHECK(queue.park(other, std::span(&read, 1)));
  std::vector<Fault> batch;
  queue.takeBatch(batch);
  CHECK(batch.size() == 1 && batch[0].block == kLeafBlocks);
  std::vector<ParkedRequest*> resume;
  const uint64_t first = kLeafBlocks;
  queue.granted(std::span(&first, 1), resume);
  CHECK(resume.empty() && queue.takeBatch(batch) == false && batch.size() == 2);
  table->loadLeaf(1, {});
  queue.granted(std::span(&first, 1), resume);
  CHECK(resume.size() == 2);
}

TEST("a fault says wholeBlock while all who wait cover the block, and a reservation lets only those go") {
  const auto table = makeTable(16);
  GivenPlaces places;
  FaultQueue queue(*table, &places, [] {});
  ParkedRequest whole;
  ParkedRequest part;
  const Fault covers{3, FaultKind::kWrite, true};
  const Fault partly{3, FaultKind::kWrite, false};
  std::vector<Fault> batch;
  CHECK(queue.park(whole, std::span(&covers, 1)));
  queue.takeBatch(batch);
  CHECK(batch.size() == 1 && batch[0].wholeBlock);
  // Too late for the fault that was taken: its answer will do for one of them.
  CHECK(queue.park(part, std::span(&partly, 1)));
  CHECK(!queue.takeBatch(batch) && batch.size() == 1);
  places.give(3, 77);
  places.setReserved(3, true);
  std::vector<ParkedRequest*> resume;
  const uint64_t block = 3;
  queue.granted(std::span(&block, 1), resume);
  CHECK(resume.size() == 1 && resume[0] == &whole);
  queue.takeBatch(batch);
  CHECK(batch.size() == 2 && batch[1].block == 3 && !batch[1].wholeBlock);
  ParkedRequest late;
  CHECK(!queue.park(late, std::span(&covers, 1)));
  table->install(3, Extent{true, true, true, 77});
  queue.granted(std::span(&block, 1), resume);
  CHECK(resume.size() == 2 && resume[1] == &part);

  // In time: the fault asks for what does for both.
  const Fault covers4{4, FaultKind::kWrite, true};
  const Fault partly4{4, FaultKind::kWrite, false};
  CHECK(queue.park(whole, std::span(&covers4, 1)));
  CHECK(queue.park(part, std::span(&partly4, 1)));
  queue.takeBatch(batch);
  CHECK(batch.size() == 3 && batch[2].block == 4 && !batch[2].wholeBlock);
  queue.close(resume);
}

TEST("an answer is expected once it was asked for, until what it is about changes") {
  const auto table = makeTable(16);
  FaultQueue queue(*table, nullptr, [] {});
  ParkedRequest request;
  const Fault faults[] = {{2, FaultKind::kWrite, false}, {9, FaultKind::kWrite, false}};
  CHECK(!queue.expects(2));
  CHECK(queue.park(request, faults));
  CHECK(!queue.expects(2));
  std::vector<Fault> batch;
  queue.takeBatch(batch);
  CHECK(queue.expects(2) && queue.expects(9) && !queue.expects(3));
  queue.changed(0, 3);
  CHECK(!queue.expects(2) && queue.expects(9));
  queue.changed(3, 200);
  CHECK(!queue.expects(9));
  std::vector<ParkedRequest*> resume;
  const uint64_t blocks[] = {2, 9};
  queue.granted(blocks, resume);
  CHECK(resume.empty() && !queue.expects(2));
  queue.takeBatch(batch);
  CHECK(batch.size() == 4 && queue.expects(2) && queue.expects(9));
  queue.close(resume);
  CHECK(resume.size() == 1);
}

TEST("a grant between the lookup and park() is not missed") {
  const auto table = makeTable(16);
  FaultQueue queue(*table, nullptr, [] {});
  table->install(1, Extent{true, true, true, 5});
  ParkedRequest request;
  const Fault fault{1, FaultKind::kWrite, false};
  CHECK(!queue.park(request, std::span(&fault, 1)));
  CHECK(request.errnoValue == 0 && queue.parkedCount() == 0 && queue.raisedCount() == 0);
}

TEST("a fault answered before it was taken is not handed over any more") {
  const auto table = makeTable(16);
  FaultQueue queue(*table, nullptr, [] {});
  ParkedRequest request;
  const Fault fault{1, FaultKind::kWrite, false};
  CHECK(queue.park(request, std::span(&fault, 1)));
  std::vector<ParkedRequest*> resume;
  const uint64_t block = 1;
  queue.refused(std::span(&block, 1), EIO, resume);
  std::vector<Fault> batch;
  queue.takeBatch(batch);
  CHECK(resume.size() == 1 && batch.empty());
}

TEST("beyond the limit of parked requests the thread waits, and a grant lets it go") {
  const auto table = makeTable(16);
  FaultQueue queue(*table, nullptr, [] {}, 1);
  ParkedRequest a;
  ParkedRequest b;
  const Fault one{1, FaultKind::kWrite, false};
  const Fault two{2, FaultKind::kWrite, false};
  CHECK(queue.park(a, std::span(&one, 1)));
  std::atomic<bool> parked{false};
  std::thread thread([&] {
    CHECK(queue.park(b, std::span(&two, 1)));
    parked = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(!parked);
  std::vector<ParkedRequest*> resume;
  const uint64_t block = 1;
  table->install(1, Extent{true, true, true, 5});
  queue.granted(std::span(&block, 1), resume);
  thread.join();
  CHECK(parked && resume.size() == 1);
  // Who was let go comes back without waiting for room: it is on the thread that makes room.
  const Fault three{3, FaultKind::kWrite, false};
  CHECK(queue.park(a, std::span(&three, 1)) && queue.parkedCount() == 2);
  resume.clear();
  queue.close(resume);
  CHECK(resume.size() == 2 && b.errnoValue == ESHUTDOWN);
  CHECK(!queue.park(a, std::span(&one, 1)) && a.errnoValue == ESHUTDOWN);
}

TEST("many threads park while another grants: every request comes back exactly once") {
  constexpr uint64_t kBlocks = 64;
  const auto table = makeTable(kBlocks);
  std::atomic<int> resumed{0};
  std::atomic<bool> stop{false};
  FaultQueue queue(*table, nullptr, [] {}, 8);
  constexpr int kThreads = 3;
  constexpr int kRequests = 2'000;
  struct Request : ParkedRequest {
    std::atomic<bool> back{false};
  };
  std::thread granter([&] {
    std::vector<Fault> batch;
    std::vector<ParkedRequest*> resume;
    std::vector<uint64_t> blocks;
    while (!stop || queue.parkedCount() > 0) {
      batch.clear();
      queue.takeBatch(batch);
      blocks.clear();
      for (const Fault& fault : batch) {
        table->install(fault.block, Extent{true, true, true, fault.block});
        blocks.push_back(fault.block);
      }
      queue.granted(blocks, resume);
      // Taken away again, as a snapshot would.
      if (!blocks.empty()) table->raiseGeneration();
      for (ParkedRequest* request : resume) {
        ++resumed;
        static_cast<Request*>(request)->back = true;
      }
      resume.clear();
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> threads;
  std::atomic<int> parked{0};
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(test::seed() + static_cast<uint64_t>(thread));
      for (int i = 0; i < kRequests; ++i) {
        Request request;
        std::vector<Fault> faults;
        for (uint64_t n = random() % 4 + 1; n > 0; --n) faults.push_back({random() % kBlocks, FaultKind::kWrite, false});
        if (!queue.park(request, faults)) continue;
        ++parked;
        while (!request.back) std::this_thread::yield();
        if (request.errnoValue != 0) CHECK(false);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  stop = true;
  granter.join();
  CHECK(resumed == parked && parked > 0);
}

namespace {
std::vector<RangeLock::Ticket*>* order = nullptr;
void note(RangeLock::Ticket& ticket) { order->push_back(&ticket); }
}  // namespace

TEST("overlapping ranges are granted in order of arrival, others at once") {
  RangeLock lock;
  std::vector<RangeLock::Ticket*> granted;
  order = &granted;
  RangeLock::Ticket a, b, c, d, e;
  CHECK(lock.lockOrQueue(a, 0, 100, note));
  CHECK(!lock.lockOrQueue(b, 50, 100, note));
  CHECK(!lock.lockOrQueue(c, 0, 60, note));
  CHECK(lock.lockOrQueue(d, 200, 10, note));
  CHECK(!lock.lockOrQueue(e, 149, 1, note));  // overlaps b only, which waits: first come, first served
  lock.unlock(a);
  CHECK(granted.size() == 1 && granted[0] == &b);
  lock.unlock(b);
  CHECK(granted.size() == 3 && granted[1] == &c && granted[2] == &e);
  lock.unlock(e);
  lock.unlock(d);
  lock.unlock(c);
  CHECK(lock.count() == 0 && granted.size() == 3);
}

TEST("adjacent ranges do not overlap, and a whole-volume ticket is a barrier") {
  RangeLock lock;
  std::vector<RangeLock::Ticket*> granted;
  order = &granted;
  RangeLock::Ticket a, b, barrier, late;
  CHECK(lock.lockOrQueue(a, 0, 512, note));
  CHECK(lock.lockOrQueue(b, 512, 512, note));
  CHECK(!lock.lockOrQueue(barrier, 0, UINT64_MAX, note));
  CHECK(!lock.lockOrQueue(late, 4096, 512, note));
  lock.unlock(b);
  CHECK(granted.empty());
  lock.unlock(a);
  CHECK(granted.size() == 1 && granted[0] == &barrier);
  lock.unlock(barrier);
  CHECK(granted.size() == 2 && granted[1] == &late);
  lock.unlock(late);
}

TEST("threads under overlapping ranges never meet, whether they wait or are parked") {
  constexpr int kCells = 32;
  RangeLock lock;
  int cells[kCells] = {};
  std::atomic<int> parked{0};
  struct Parked {
    RangeLock::Ticket ticket;
    std::atomic<bool> granted{false};
  };
  std::vector<std::thread> threads;
  std::atomic<uint64_t> expected{0};
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(test::seed() * 31 + static_cast<uint64_t>(thread));
      for (int i = 0; i < 3'000; ++i) {
        const uint64_t begin = random() % kCells;
        const uint64_t length = random() % (kCells - begin) % 8 + 1;
        expected += length;
        const auto work = [&] {
          for (uint64_t cell = begin; cell < begin + length; ++cell) ++cells[cell];
        };
        if (thread % 2 == 0) {
          RangeGuard guard(lock, begin, length);
          work();
          continue;
        }
        Parked request;
        request.ticket.owner = &request;
        const bool now = lock.lockOrQueue(request.ticket, begin, length, [](RangeLock::Ticket& ticket) {
          static_cast<Parked*>(ticket.owner)->granted = true;
        });
        if (!now) {
          ++parked;
          while (!request.granted) std::this_thread::yield();
        }
        work();
        lock.unlock(request.ticket);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t sum = 0;
  for (const int cell : cells) sum += static_cast<uint64_t>(cell);
  CHECK(sum == expected && lock.count() == 0);
}

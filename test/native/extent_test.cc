// SPDX-License-Identifier: Apache-2.0
#include <atomic>
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

std::unique_ptr<ExtentTable> makeTable(uint64_t blocks) { return ExtentTable::mapped(blocks * kBlock, kBlock).take(); }

}  // namespace

TEST("a linear table maps everything to itself, in one run") {
  const auto table = ExtentTable::linear(1000 * 512);
  const ExtentRun run = table->runAt(512, 999 * 512);
  CHECK(run.known && run.mapped && run.writable && run.backingOffset == 512 && run.length == 999 * 512);
}

TEST("a 16 TiB table begins unknown and holds what is installed at both ends") {
  auto made = ExtentTable::mapped(16 * kTiB, kBlock);
  CHECK(made.ok());
  const auto table = made.take();
  const uint64_t last = table->blockCount() - 1;
  CHECK(table->blockCount() == 16 * kTiB / kBlock);
  CHECK(!table->lookup(0).known && !table->lookup(last).known);
  const Extent extent{true, true, true, kExtentLocationLimit - 1};
  table->install(last, extent);
  CHECK(table->lookup(last) == extent);
  table->install(0, Extent{true, false, false, 0});
  CHECK((table->lookup(0) == Extent{true, false, false, 0}));
  table->install(0, Extent{});
  CHECK(!table->lookup(0).known);
}

TEST("bad table sizes are refused") {
  CHECK(!ExtentTable::mapped(0, kBlock).ok());
  CHECK(!ExtentTable::mapped(1 << 20, 1000).ok());
  CHECK(!ExtentTable::mapped(1 << 20, 256).ok());
}

TEST("runs join blocks that are alike and next to each other, and nothing else") {
  const auto table = makeTable(16);
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
  CHECK(hole.length == 2 * kBlock && hole.known && !hole.mapped);
  const ExtentRun unknown = table->runAt(8 * kBlock, 8 * kBlock);
  CHECK(unknown.length == 8 * kBlock && !unknown.known);
  CHECK(table->runAt(2 * kBlock, 512).length == 512);
}

TEST("a lookup beside an install sees the whole old or the whole new entry") {
  const auto table = makeTable(1);
  const Extent one{true, true, true, 0x123456789abc};
  const Extent two{true, true, false, 0x0fedcba98765};
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
  FaultQueue queue(*table, [&] { ++calls; });
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
  FaultQueue queue(*table, [] {});
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

TEST("a grant that is not writable answers the read and leaves the write waiting, raised once") {
  const auto table = makeTable(16);
  FaultQueue queue(*table, [] {});
  ParkedRequest reader;
  ParkedRequest writer;
  const Fault read{7, FaultKind::kReadUnknown, false};
  const Fault write{7, FaultKind::kWrite, false};
  CHECK(queue.park(reader, std::span(&read, 1)));
  CHECK(queue.park(writer, std::span(&write, 1)));
  std::vector<Fault> batch;
  queue.takeBatch(batch);
  CHECK(batch.size() == 2);
  table->install(7, Extent{true, true, false, 5});
  std::vector<ParkedRequest*> resume;
  const uint64_t block = 7;
  queue.granted(std::span(&block, 1), resume);
  CHECK(resume.size() == 1 && resume[0] == &reader);
  table->install(7, Extent{true, true, true, 5});
  queue.granted(std::span(&block, 1), resume);
  CHECK(resume.size() == 2 && queue.raisedCount() == 2);
}

TEST("a grant between the lookup and park() is not missed") {
  const auto table = makeTable(16);
  FaultQueue queue(*table, [] {});
  table->install(1, Extent{true, true, true, 5});
  ParkedRequest request;
  const Fault fault{1, FaultKind::kWrite, false};
  CHECK(!queue.park(request, std::span(&fault, 1)));
  CHECK(request.errnoValue == 0 && queue.parkedCount() == 0 && queue.raisedCount() == 0);
}

TEST("a fault answered before it was taken is not handed over any more") {
  const auto table = makeTable(16);
  FaultQueue queue(*table, [] {});
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
  FaultQueue queue(*table, [] {}, 1);
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
  queue.close(resume);
  CHECK(resume.size() == 2 && b.errnoValue == ESHUTDOWN);
  CHECK(!queue.park(a, std::span(&one, 1)) && a.errnoValue == ESHUTDOWN);
}

TEST("many threads park while another grants: every request comes back exactly once") {
  constexpr uint64_t kBlocks = 64;
  const auto table = makeTable(kBlocks);
  std::atomic<int> resumed{0};
  std::atomic<bool> stop{false};
  FaultQueue queue(*table, [] {}, 8);
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
      for (const uint64_t block : blocks) table->install(block, Extent{});
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

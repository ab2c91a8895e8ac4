// SPDX-License-Identifier: Apache-2.0
//
// Appends a second, by payload size, threads and folder:
//   g++ -std=c++20 -O2 test/native/benchmark/journal_append.cc native/journal/*.cc native/sys/crc32c.cc -o /tmp/append
//   /tmp/append FOLDER PAYLOAD_BYTES THREADS SECONDS

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "../../../native/journal/journal.h"

using namespace tidemark;

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const uint32_t bytes = static_cast<uint32_t>(std::atoi(argv[2]));
  JournalOptions options;
  options.directory = argv[1];
  options.segmentBytes = 64 << 20;
  options.spareSegments = 4;
  options.limitBytes = uint64_t{2} << 30;
  options.incarnation = 1;
  std::atomic<int> full{0};
  options.onEvent = [&](const JournalEvent& event) {
    if (event.kind == JournalEvent::Kind::kFull) ++full;
    else std::printf("%s\n", event.error.message.c_str());
  };
  auto opened = Journal::open(options);
  if (!opened) {
    std::printf("%s\n", opened.error().message.c_str());
    return 1;
  }
  Journal& journal = **opened;
  std::atomic<bool> stop{false};
  std::thread checkpoint([&] {  // as the agent does: an epoch a quarter of a second, then a trim
    while (!stop) {
      std::this_thread::sleep_for(std::chrono::milliseconds(250));
      auto durable = journal.syncAndWait();
      if (durable) journal.trim(durable.value());
    }
  });
  const auto began = std::chrono::steady_clock::now();
  const auto end = began + std::chrono::seconds(std::atoi(argv[4]));
  std::vector<std::thread> threads;
  for (int i = std::atoi(argv[3]); i > 0; --i) {
    threads.emplace_back([&] {
      std::vector<uint8_t> payload(bytes, static_cast<uint8_t>(i));
      while (std::chrono::steady_clock::now() < end) {
        auto reservation = journal.reserve(RecordType::kWrite, 0, 0, bytes, bytes).take();
        std::memcpy(reservation.payload, payload.data(), bytes);
        if (!journal.complete(reservation)) std::abort();
        journal.applied(reservation);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  stop = true;
  checkpoint.join();
  const JournalCounters counters = journal.counters();
  std::printf("%u bytes: %.0f appends/s, %.0f MB/s, %lu syncs, full %d times, %lu segments\n", bytes,
              static_cast<double>(counters.records) / seconds,
              static_cast<double>(counters.payloadBytes) / seconds / 1e6, counters.syncs, full.load(), counters.segments);
  return journal.close().ok() ? 0 : 1;
}

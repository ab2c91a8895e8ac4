// SPDX-License-Identifier: Apache-2.0
//
// The native filter without Node, on a real /dev/loop device, to be built with a sanitizer. Threads write, read, trim
// and flush overlapping ranges while the journal is set and taken away and blocks are granted.
//
// Usage: stress FOLDER linear|mapped|thin      exit code 0 when everything held
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "../../native/volume/volume.h"
#include "stress.h"

using namespace tidemark;
using namespace tidemark::stress;

namespace {

constexpr uint64_t sizeBytes = 8 << 20;
constexpr uint32_t blockBytes = 64 << 10;
constexpr int hostThreads = 4;
constexpr int requestsEach = 400;

void host(const std::string& device, uint32_t seed) {
  std::mt19937 random(seed);
  const UniqueFd fd(open(device.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC));
  require(static_cast<bool>(fd), "open the device");
  const std::unique_ptr<void, void (*)(void*)> buffer(std::aligned_alloc(4096, 1 << 20), std::free);
  for (int i = 0; i < requestsEach; i++) {
    const uint64_t length = 512 * (1 + random() % (random() % 8 == 0 ? 512 : 32));
    const uint64_t offset = 512 * (random() % ((sizeBytes - length) / 512));
    const auto position = static_cast<off_t>(offset);
    const auto whole = static_cast<ssize_t>(length);
    switch (random() % 16) {
      case 0: {
        uint64_t range[2] = {offset, length};
        require(ioctl(fd.get(), BLKDISCARD, range) == 0, "discard");
        break;
      }
      case 1:
        require(fdatasync(fd.get()) == 0, "sync");
        break;
      case 2:
      case 3:
      case 4:
        require(pread(fd.get(), buffer.get(), length, position) == whole, "read");
        break;
      default:
        std::memset(buffer.get(), static_cast<int>(random() & 0xff), length);
        require(pwrite(fd.get(), buffer.get(), length, position) == whole, "write");
    }
  }
}

/** Answers faults like a thin pool: identity location, first seen as unmapped. */
class Answering {
 public:
  explicit Answering(std::atomic<uint32_t>& wanted) : wanted_(wanted) {}

  void begin(Volume& volume) {
    thread_ = std::thread([this, &volume] { answer(volume); });
  }
  void end() {
    stop_ = true;
    wanted_.fetch_add(1);
    wanted_.notify_one();
    thread_.join();
  }

 private:
  void answer(Volume& volume) {
    uint32_t seen = 0;
    while (!stop_) {
      wanted_.wait(seen);
      seen = wanted_.load();
      std::vector<Fault> faults;
      while (volume.takeFaults(faults)) {
      }
      std::vector<Grant> grants;
      for (const Fault& fault : faults) {
        if (fault.kind == FaultKind::kReadUnknown) {
          must(volume.loadLeaf(fault.block / kLeafBlocks, {}), "load a leaf");
          continue;
        }
        const bool before = mapped_[fault.block];
        mapped_[fault.block] = true;
        grants.push_back(Grant{fault.block, fault.block, true, true, before ? Grant::noCopy : -1});
      }
      if (!grants.empty()) must(volume.grant(std::move(grants)), "grant");
    }
  }

  std::atomic<uint32_t>& wanted_;
  std::vector<bool> mapped_ = std::vector<bool>(sizeBytes / blockBytes);
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace

void tidemark::stress::makeFile(const std::string& path, uint64_t bytes) {
  require(close(open(path.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600)) == 0, "make a file");
  require(truncate(path.c_str(), static_cast<off_t>(bytes)) == 0, "size a file");
}

std::shared_ptr<Journal> tidemark::stress::openJournal(const std::string& folder) {
  JournalOptions options;
  options.directory = folder + "/journal";
  require(mkdir(options.directory.c_str(), 0700) == 0, "make the journal's folder");
  options.journalId.fill(9);
  options.segmentBytes = 4 << 20;
  options.limitBytes = uint64_t{1} << 30;
  options.incarnation = 1;
  return must(Journal::open(std::move(options)), "open the journal");
}

int main(int count, char** arguments) {
  require(count == 3, "usage: stress FOLDER linear|mapped|thin");
  const std::string folder = arguments[1];
  if (std::string(arguments[2]) == "thin") {
    runThin(folder);
    return 0;
  }
  const bool mapped = std::string(arguments[2]) == "mapped";
  const std::string backing = folder + "/backing", mountPoint = folder + "/mount";
  makeFile(backing, sizeBytes);
  makeFile(mountPoint, 0);
  std::shared_ptr<Journal> journal = openJournal(folder);

  std::atomic<uint32_t> wanted{0};
  Answering answering(wanted);
  VolumeOptions options;
  options.name = "stress";
  options.path = backing;
  options.sizeBytes = sizeBytes;
  options.threads = 3;
  options.syncBacking = true;
  options.tableBlockBytes = mapped ? blockBytes : 0;
  options.onFaults = [&wanted] {
    wanted.fetch_add(1);
    wanted.notify_one();
  };
  std::unique_ptr<Volume> volume = must(Volume::open(std::move(options)), "open the volume");
  if (mapped) answering.begin(*volume);

  for (int round = 0; round < 2; round++) {
    const std::string device = must(volume->attach(mountPoint), "attach").device;
    std::vector<std::thread> hosts;
    for (int i = 0; i < hostThreads; i++) hosts.emplace_back(host, device, 1000u * static_cast<uint32_t>(round) + i);
    for (int i = 0; i < 20; i++) {
      must(volume->setJournal(journal, 1), "set the journal");
      (void)journal->counters();
      (void)volume->counters();
      must(volume->setJournal(nullptr, 0), "take the journal");
      must(volume->syncBacking(), "sync the backing");
    }
    must(volume->setJournal(journal, 1), "set the journal");
    for (std::thread& thread : hosts) thread.join();
    must(volume->detach(), "detach");
    must(volume->setJournal(nullptr, 0), "take the journal");
  }
  const VolumeCounters counters = volume->counters();
  require(counters.inFlight == 0 && counters.errors == 0, "requests left or failed");
  if (mapped) answering.end();
  must(volume->close(), "close the volume");
  volume.reset();
  const JournalCounters end = journal->counters();
  require(end.publishedLsn == end.appliedLsn && end.records > 0, "records left");
  must(journal->close(), "close the journal");
  std::printf("%s: %llu writes, %llu reads, %llu trims, %llu flushes, %llu faults, %llu records\n", arguments[2],
              static_cast<unsigned long long>(counters.writes), static_cast<unsigned long long>(counters.reads),
              static_cast<unsigned long long>(counters.trims), static_cast<unsigned long long>(counters.flushes),
              static_cast<unsigned long long>(counters.faults), static_cast<unsigned long long>(end.records));
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
#include "../../native/sys/shared_mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../../native/sys/signals_blocked.h"
#include "../../native/sys/unique_fd.h"
#include "check.h"

using namespace tidemark;

namespace {

constexpr size_t kBytes = 64 << 10;

UniqueFd makeFile(const test::TemporaryFolder& folder, const char* name) {
  UniqueFd file(open((folder.path() + "/" + name).c_str(), O_RDWR | O_CREAT, 0600));
  CHECK(file && ftruncate(file.get(), kBytes) == 0);
  return file;
}

/** A file that is shorter than its mapping answers as one whose disk does: with SIGBUS. */
void lose(const UniqueFd& file) { CHECK(ftruncate(file.get(), 0) == 0); }

void store(const SharedMapping& mapping, size_t at) {
  *const_cast<volatile uint8_t*>(mapping.memory() + at) = 7;
}

}  // namespace

TEST("a store that the file does not take breaks its mapping alone, and the thread goes on, also one that takes no signals") {
  test::TemporaryFolder folder;
  const UniqueFd sound = makeFile(folder, "sound");
  const UniqueFd lost = makeFile(folder, "lost");
  const auto soundMapping = SharedMapping::map(sound.get(), kBytes, 0).take();
  const auto lostMapping = SharedMapping::map(lost.get(), kBytes, MAP_POPULATE).take();
  store(*lostMapping, 4096);
  CHECK(!lostMapping->isBroken());
  lose(lost);
  bool wentOn = false;
  std::thread thread;
  {
    const SignalsBlocked blocked;
    thread = std::thread([&] {
      for (size_t at = 0; at < kBytes; at += 512) store(*lostMapping, at);
      store(*soundMapping, 4096);
      wentOn = lostMapping->memory()[kBytes - 512] == 7;
    });
  }
  thread.join();
  CHECK(wentOn);
  CHECK(lostMapping->isBroken() && !soundMapping->isBroken());
  uint8_t byte = 0;
  CHECK(pread(sound.get(), &byte, 1, 4096) == 1 && byte == 7);
}

TEST("of a thousand mappings each knows for itself, while others come and go, and what takes the place of a broken one is sound") {
  test::TemporaryFolder folder;
  const UniqueFd sound = makeFile(folder, "sound");
  const UniqueFd lost = makeFile(folder, "lost");
  lose(lost);
  std::atomic<bool> stop{false};
  std::thread others([&] {
    while (!stop) store(*SharedMapping::map(sound.get(), kBytes, 0).take(), 0);
  });
  for (int round = 0; round < 3; round++) {
    std::vector<std::unique_ptr<SharedMapping>> mappings;
    for (int at = 0; at < 1000; at++) {
      mappings.push_back(SharedMapping::map(at % 3 == 0 ? lost.get() : sound.get(), kBytes, 0).take());
    }
    for (const auto& mapping : mappings) store(*mapping, 100);
    int wrong = 0;
    for (int at = 0; at < 1000; at++) wrong += mappings[static_cast<size_t>(at)]->isBroken() == (at % 3 == 0) ? 0 : 1;
    CHECK(wrong == 0);
  }
  stop = true;
  others.join();
}

TEST("a bus error anywhere else ends the process, as without any mapping") {
  test::TemporaryFolder folder;
  const UniqueFd lost = makeFile(folder, "lost");
  const auto mapping = SharedMapping::map(lost.get(), kBytes, 0).take();
  const auto outcomeOf = [&](auto cause) {
    const pid_t child = fork();
    if (child == 0) {
      (void)!freopen("/dev/null", "w", stderr);
      cause();
      _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
  };
  lose(lost);
  CHECK(outcomeOf([&] { store(*mapping, 0); }) == 0);
  CHECK(outcomeOf([&] {
          void* other = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, lost.get(), 0);
          *static_cast<volatile uint8_t*>(other) = 7;
        }) != 0);
  CHECK(outcomeOf([] { kill(getpid(), SIGBUS); }) != 0);
}

TEST("what is released leaves the mapping whole and at once, and is in the file; the pages at its ends stay") {
  test::TemporaryFolder folder;
  const UniqueFd file = makeFile(folder, "file");
  const auto mapping = SharedMapping::map(file.get(), kBytes, 0).take();
  for (size_t at = 0; at < kBytes; at += 4096) store(*mapping, at + 5);
  const auto resident = [&] {
    std::vector<uint64_t> entries(kBytes / 4096);
    const UniqueFd pagemap(open("/proc/self/pagemap", O_RDONLY));
    const auto at = static_cast<off_t>(reinterpret_cast<uintptr_t>(mapping->memory()) / 4096 * 8);
    CHECK(pread(pagemap.get(), entries.data(), kBytes / 512, at) == kBytes / 512);
    std::string there;
    for (const uint64_t entry : entries) there += (entry >> 63) != 0 ? 'm' : '-';
    return there;
  };
  CHECK(resident() == "mmmmmmmmmmmmmmmm");
  mapping->release(4096 + 64, 3 * 4096 - 64);
  CHECK(resident() == "m-mmmmmmmmmmmmmm");
  mapping->release(5 * 4096 - 64, 5 * 4096);
  CHECK(resident() == "m-mm-mmmmmmmmmmm");
  mapping->release(8192, 8192 + 64);
  CHECK(resident() == "m-mm-mmmmmmmmmmm");
  store(*mapping, 4096);
  CHECK(resident() == "mmmm-mmmmmmmmmmm" && !mapping->isBroken());
  std::vector<uint8_t> bytes(kBytes);
  CHECK(pread(file.get(), bytes.data(), kBytes, 0) == kBytes);
  for (size_t at = 0; at < kBytes; at += 4096) CHECK(bytes[at + 5] == 7);
  CHECK(bytes[4096] == 7);
}

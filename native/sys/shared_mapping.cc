// SPDX-License-Identifier: Apache-2.0
#include "shared_mapping.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>

namespace tidemark {

/** A place in the table of what is mapped. `turn` is odd while the two behind it change: so a look at both is of one moment. */
struct MappingPlace {
  std::atomic<uint64_t> turn{0};
  /** 0: the place is free. */
  std::atomic<uintptr_t> begin{0};
  std::atomic<size_t> bytes{0};
  std::atomic<bool> broken{false};
};

namespace {

/** The table grows by these and never shrinks: a signal may look at any of them at any time. */
struct Places {
  std::array<MappingPlace, 256> places;
  std::atomic<Places*> next{nullptr};
};

Places first;
/** Guards who has which place. The signal does without. */
std::mutex giving;
struct sigaction before;

static_assert(std::atomic<uintptr_t>::is_always_lock_free && std::atomic<uint64_t>::is_always_lock_free);

void set(MappingPlace& place, uintptr_t begin, size_t bytes) {
  place.turn.fetch_add(1);
  place.begin = begin;
  place.bytes = bytes;
  place.turn.fetch_add(1);
}

MappingPlace& take(uintptr_t begin, size_t bytes) {
  const std::lock_guard lock(giving);
  for (Places* some = &first;; some = some->next) {
    for (MappingPlace& place : some->places) {
      if (place.begin != 0) continue;
      place.broken = false;
      set(place, begin, bytes);
      return place;
    }
    if (some->next == nullptr) some->next = new Places;
  }
}

/** Whose mapping was touched is there as long as it is touched, so its place does not change meanwhile. */
bool replace(uintptr_t address) {
  for (Places* some = &first; some != nullptr; some = some->next) {
    for (MappingPlace& place : some->places) {
      const uint64_t turn = place.turn;
      const uintptr_t begin = place.begin;
      const size_t bytes = place.bytes;
      if (begin == 0 || turn % 2 != 0 || turn != place.turn || address < begin || address - begin >= bytes) continue;
      // Before anything can be stored in what takes its place.
      place.broken = true;
      constexpr int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
      return mmap(reinterpret_cast<void*>(begin), bytes, PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED;
    }
  }
  return false;
}

void busError(int, siginfo_t* info, void*) {
  const int errnoBefore = errno;
  const bool touched = info->si_code == BUS_ADRERR || info->si_code == BUS_MCEERR_AR;
  if (!touched || !replace(reinterpret_cast<uintptr_t>(info->si_addr))) {
    // Not ours: it comes again when this returns, a signal that somebody sent by raise().
    sigaction(SIGBUS, &before, nullptr);
    if (info->si_code <= 0) raise(SIGBUS);
  }
  errno = errnoBefore;
}

void listen() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = busError;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &before);
  });
}

}  // namespace

Result<std::unique_ptr<SharedMapping>> SharedMapping::map(int fd, size_t bytes, int flags) {
  listen();
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);
  if (memory == MAP_FAILED) return Error::fromErrno("MAP_FAILED", "map", errno);
  MappingPlace& place = take(reinterpret_cast<uintptr_t>(memory), bytes);
  return std::unique_ptr<SharedMapping>(new SharedMapping(static_cast<uint8_t*>(memory), bytes, place));
}

/** The place first: as soon as the addresses are free another mapping may have them. */
SharedMapping::~SharedMapping() {
  {
    const std::lock_guard lock(giving);
    set(place_, 0, 0);
  }
  munmap(memory_, bytes_);
}

void SharedMapping::release(size_t from, size_t to) {
  static const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  from -= from % page;
  to -= to % page;
  if (from < to) madvise(memory_ + from, to - from, MADV_DONTNEED);
}

bool SharedMapping::isBroken() const {
  // What this thread has stored is where it goes before this is looked at. Not std's fence, which TSan refuses.
  __sync_synchronize();
  return place_.broken;
}

}  // namespace tidemark

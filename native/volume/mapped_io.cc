// SPDX-License-Identifier: Apache-2.0
#include "mapped_io.h"

#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <memory>

namespace tidemark {
namespace {

constexpr uint64_t copyBytes = 1 << 20;
/** Leaves a seek asks for at a time: a few too many are cheap, a round trip for each is not. */
constexpr size_t seekLeafLimit = 64;

/** Call `step(run, at)` for each run of the range until one returns an errno. */
template <typename Step>
int forEachRun(const ExtentTable& table, uint64_t offset, uint64_t length, Step step) {
  uint64_t at = 0;
  while (at < length) {
    const ExtentRun run = table.runAt(offset + at, length - at);
    const int failed = step(run, at);
    if (failed != 0) return failed;
    at += run.length;
  }
  return 0;
}

bool isAllowed(Access access, const ExtentRun& run) {
  if (access == Access::kRead) return true;
  return run.writable || (access == Access::kDiscard && !run.mapped);
}

/** One fault for each leaf from the one that holds byte `begin` to the one that holds byte `end - 1`. */
void askForLeaves(const ExtentTable& table, uint64_t begin, uint64_t end, size_t limit, std::vector<Fault>& faults) {
  const uint64_t last = (end - 1) / table.blockBytes();
  const uint64_t block = begin / table.blockBytes();
  for (uint64_t leaf = block - block % kLeafBlocks; leaf <= last && faults.size() < limit; leaf += kLeafBlocks) {
    faults.push_back(Fault{leaf, FaultKind::kReadUnknown, false});
  }
}

}  // namespace

void collectFaults(const ExtentTable& table, Access access, uint64_t offset, uint64_t length,
                   std::vector<Fault>& faults) {
  faults.clear();
  if (table.isLinear()) return;
  const uint64_t blockBytes = table.blockBytes();
  const uint64_t end = offset + length;
  uint64_t at = offset;
  while (at < end && faults.size() < kFaultBatchLimit) {
    const ExtentRun run = table.runAt(at, end - at);
    const uint64_t runEnd = at + run.length;
    if (!run.known) {
      askForLeaves(table, at, runEnd, kFaultBatchLimit, faults);
    } else if (!isAllowed(access, run)) {
      for (uint64_t block = at / blockBytes; block * blockBytes < runEnd && faults.size() < kFaultBatchLimit; block++) {
        const uint64_t blockEnd = std::min((block + 1) * blockBytes, table.sizeBytes());
        faults.push_back(Fault{block, FaultKind::kWrite, offset <= block * blockBytes && blockEnd <= end});
      }
    }
    at = runEnd;
  }
}

int readMapped(const ExtentTable& table, const Backing& backing, uint64_t offset, uint8_t* bytes, uint64_t length) {
  return forEachRun(table, offset, length, [&](const ExtentRun& run, uint64_t at) {
    if (run.mapped) return backing.read(run.backingOffset, bytes + at, run.length);
    std::memset(bytes + at, 0, run.length);
    return 0;
  });
}

int writeMapped(const ExtentTable& table, Backing& backing, uint64_t offset, const uint8_t* bytes, uint64_t length) {
  return forEachRun(table, offset, length, [&](const ExtentRun& run, uint64_t at) {
    assert(run.mapped && run.writable);
    return backing.write(run.backingOffset, bytes + at, run.length);
  });
}

int discardMapped(const ExtentTable& table, Backing& backing, uint64_t offset, uint64_t length, bool keepAllocated) {
  return forEachRun(table, offset, length, [&](const ExtentRun& run, uint64_t) {
    if (!run.mapped) return 0;
    assert(run.writable);
    return keepAllocated ? backing.zero(run.backingOffset, run.length) : backing.trim(run.backingOffset, run.length);
  });
}

int64_t seekMapped(const ExtentTable& table, const Backing& backing, uint64_t offset, int whence,
                   std::vector<Fault>& faults) {
  faults.clear();
  const uint64_t volumeBytes = table.sizeBytes();
  if (offset >= volumeBytes) return -ENXIO;
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return -EINVAL;
  if (table.isLinear()) {
    const int64_t found = backing.seek(offset, whence);
    if (found < 0) return found;
    if (static_cast<uint64_t>(found) < volumeBytes) return found;
    return whence == SEEK_DATA ? -ENXIO : static_cast<int64_t>(volumeBytes);
  }
  while (offset < volumeBytes) {
    const ExtentRun run = table.runAt(offset, volumeBytes - offset);
    if (!run.known) {
      askForLeaves(table, offset, offset + run.length, seekLeafLimit, faults);
      return 0;
    }
    if (run.mapped == (whence == SEEK_DATA)) return static_cast<int64_t>(offset);
    offset += run.length;
  }
  return whence == SEEK_DATA ? -ENXIO : static_cast<int64_t>(volumeBytes);
}

int copyBlock(const ExtentTable& table, Backing& backing, uint64_t location, int64_t copyFrom, uint64_t lengthBytes) {
  const uint64_t to = location * table.blockBytes();
  if (copyFrom < 0) return backing.zero(to, lengthBytes);
  const uint64_t from = static_cast<uint64_t>(copyFrom) * table.blockBytes();
  const uint64_t pieceBytes = std::min(lengthBytes, copyBytes);
  const std::unique_ptr<void, void (*)(void*)> buffer(std::aligned_alloc(4096, (pieceBytes + 4095) & ~uint64_t{4095}),
                                                      std::free);
  if (!buffer) return ENOMEM;
  for (uint64_t at = 0; at < lengthBytes; at += pieceBytes) {
    const uint64_t length = std::min(pieceBytes, lengthBytes - at);
    int failed = backing.read(from + at, buffer.get(), length);
    if (failed == 0) failed = backing.write(to + at, buffer.get(), length);
    if (failed != 0) return failed;
  }
  return 0;
}

}  // namespace tidemark

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

bool isAllowed(Access access, const ExtentRun& run, FaultKind& kind) {
  kind = access == Access::kWrite ? FaultKind::kWrite : FaultKind::kReadUnknown;
  if (access == Access::kWrite) return run.known && run.mapped && run.writable;
  if (!run.known) return false;
  if (access == Access::kRead || !run.mapped || run.writable) return true;
  kind = FaultKind::kWrite;
  return false;
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
    FaultKind kind;
    if (!isAllowed(access, run, kind)) {
      for (uint64_t block = at / blockBytes; block * blockBytes < runEnd && faults.size() < kFaultBatchLimit; block++) {
        const uint64_t blockEnd = std::min((block + 1) * blockBytes, table.sizeBytes());
        faults.push_back(Fault{block, kind, offset <= block * blockBytes && blockEnd <= end});
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

int64_t seekMapped(const ExtentTable& table, const Backing& backing, uint64_t offset, int whence) {
  if (offset >= table.sizeBytes()) return -ENXIO;
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return -EINVAL;
  if (table.isLinear()) {
    const int64_t found = backing.seek(offset, whence);
    if (found < 0) return found;
    if (static_cast<uint64_t>(found) < table.sizeBytes()) return found;
    return whence == SEEK_DATA ? -ENXIO : static_cast<int64_t>(table.sizeBytes());
  }
  while (offset < table.sizeBytes()) {
    const ExtentRun run = table.runAt(offset, table.sizeBytes() - offset);
    const bool isData = !run.known || run.mapped;
    if (isData == (whence == SEEK_DATA)) return static_cast<int64_t>(offset);
    offset += run.length;
  }
  return whence == SEEK_DATA ? -ENXIO : static_cast<int64_t>(table.sizeBytes());
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

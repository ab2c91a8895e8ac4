// SPDX-License-Identifier: Apache-2.0
#include "thin_io.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace tidemark {
namespace {

using Step = ThinPlan::Step;

/** `length` is a multiple of 512. Most data differ from zeros in the first words looked at. */
bool isZero(const uint8_t* bytes, uint64_t length) {
  for (const uint64_t at : {uint64_t{0}, length / 2, length - sizeof(uint64_t)}) {
    uint64_t word;
    std::memcpy(&word, bytes + at, sizeof word);
    if (word != 0) return false;
  }
  return std::memcmp(bytes, bytes + sizeof(uint64_t), length - sizeof(uint64_t)) == 0;
}

void askForLeaf(uint64_t block, std::vector<Fault>& faults) {
  const uint64_t first = block - block % kLeafBlocks;
  if (!faults.empty() && faults.back().kind == FaultKind::kReadUnknown && faults.back().block == first) return;
  if (faults.size() < kFaultBatchLimit) faults.push_back(Fault{first, FaultKind::kReadUnknown, false});
}

void askForPlace(uint64_t block, bool wholeBlock, std::vector<Fault>& faults) {
  if (faults.size() < kFaultBatchLimit) faults.push_back(Fault{block, FaultKind::kWrite, wholeBlock});
}

/** Join with the piece before where the two are neighbours, in the request and on the backing. */
void addPlaced(ThinPlan& plan, const ThinPlan::Piece& piece) {
  if (!plan.pieces.empty()) {
    ThinPlan::Piece& last = plan.pieces.back();
    if (last.step == piece.step && last.at + last.length == piece.at &&
        last.backingOffset + last.length == piece.backingOffset) {
      last.length += piece.length;
      last.blockCount += piece.blockCount;
      return;
    }
  }
  plan.pieces.push_back(piece);
}

/** What lies between two holes of a write, with no piece of its own, reads as zeros too: one hole. */
void addHole(ThinPlan& plan, uint64_t block) {
  if (!plan.pieces.empty() && plan.pieces.back().step == Step::kHole) {
    plan.pieces.back().blockCount = block + 1 - plan.pieces.back().block;
  } else {
    plan.pieces.push_back({Step::kHole, 0, 0, 0, block, 1});
  }
}

/** Some bytes of a block that is not covered, to be zeroed. */
void planPartialZero(const ExtentTable& table, uint64_t requestBegin, uint64_t begin, uint64_t end, ThinPlan& plan,
                     std::vector<Fault>& faults) {
  const uint64_t block = begin / table.blockBytes();
  const Extent extent = table.lookup(block);
  if (!extent.known) {
    askForLeaf(block, faults);
  } else if (extent.mapped && extent.writable) {
    const uint64_t to = extent.location * table.blockBytes() + begin % table.blockBytes();
    addPlaced(plan, {Step::kInPlace, begin - requestBegin, end - begin, to, 0, 0});
  } else if (extent.mapped) {
    askForPlace(block, false, faults);
  }
}

}  // namespace

void planWrite(const ExtentTable& table, const ThinLayer& thin, uint64_t offset, const uint8_t* bytes, uint64_t length,
               ThinPlan& plan, std::vector<Fault>& faults) {
  plan.pieces.clear();
  faults.clear();
  const bool makesHoles = thin.makesHoles.load(std::memory_order_relaxed);
  const uint64_t blockBytes = table.blockBytes();
  const uint64_t volumeBytes = table.sizeBytes();
  for (uint64_t at = 0, piece = 0; at < length; at += piece) {
    const uint64_t block = (offset + at) / blockBytes;
    const uint64_t within = (offset + at) % blockBytes;
    piece = std::min(blockBytes - within, length - at);
    // The volume may end inside its last block. A place is taken for the whole of it: what lies behind the end must be
    // zeros should the volume grow, so a write up to the end is none that needs nothing copied.
    const bool isWhole = piece == blockBytes;
    const bool covers = isWhole || (within == 0 && offset + at + piece == volumeBytes);
    const Extent extent = table.lookup(block);
    if (!extent.known) {
      askForLeaf(block, faults);
    } else if (((covers && makesHoles) || !extent.mapped) && isZero(bytes + at, piece)) {
      if (extent.mapped) addHole(plan, block);
    } else if (extent.writable) {
      addPlaced(plan, {Step::kInPlace, at, piece, extent.location * blockBytes + within, 0, 0});
    } else if (const auto place = isWhole ? thin.places.reserved(block) : std::nullopt) {
      addPlaced(plan, {Step::kReserved, at, piece, *place * blockBytes, block, 1});
    } else {
      askForPlace(block, isWhole, faults);
    }
  }
}

void planDiscard(const ExtentTable& table, uint64_t offset, uint64_t length, ThinPlan& plan,
                 std::vector<Fault>& faults) {
  plan.pieces.clear();
  faults.clear();
  const uint64_t blockBytes = table.blockBytes();
  const uint64_t end = offset + length;
  // Blocks from `first` up to `last` are covered.
  const uint64_t first = (offset + blockBytes - 1) / blockBytes;
  const uint64_t last = end == table.sizeBytes() ? table.blockCount() : end / blockBytes;
  if (offset % blockBytes != 0) {
    planPartialZero(table, offset, offset, std::min(first * blockBytes, end), plan, faults);
  }
  uint64_t holeBegin = last;
  uint64_t holeEnd = last;
  for (uint64_t block = first; block < last;) {
    const uint64_t begin = block * blockBytes;
    const ExtentRun run = table.runAt(begin, std::min(last * blockBytes, end) - begin);
    const uint64_t runEnd = (begin + run.length + blockBytes - 1) / blockBytes;
    if (!run.known) {
      const uint64_t leafEnd = std::min((block / kLeafBlocks + 1) * kLeafBlocks, table.blockCount());
      if (block % kLeafBlocks != 0 || leafEnd > last) {
        askForLeaf(block, faults);
        block = std::min(leafEnd, runEnd);
        continue;
      }
      // Whatever is in there goes: no need to ask.
      holeBegin = std::min(holeBegin, block);
      holeEnd = leafEnd;
      block = leafEnd;
      continue;
    }
    if (run.mapped) {
      holeBegin = std::min(holeBegin, block);
      holeEnd = runEnd;
    }
    block = runEnd;
  }
  if (holeBegin < last) plan.pieces.push_back({Step::kHole, 0, 0, 0, holeBegin, holeEnd - holeBegin});
  if (first <= last && last * blockBytes < end) {
    planPartialZero(table, offset, std::max(last * blockBytes, offset), end, plan, faults);
  }
}

int carryOut(ExtentTable& table, ThinLayer& thin, FaultQueue& faults, const ThinPlan& plan, const uint8_t* bytes) {
  Pool& pool = *thin.pool;
  for (const ThinPlan::Piece& piece : plan.pieces) {
    if (piece.step == Step::kHole) continue;
    // Said before: what fails from here on, here or in another piece, leaves a place that does not read as zeros.
    for (uint64_t index = 0; index < piece.blockCount; index++) thin.places.touch(piece.block + index);
    const int failed = bytes == nullptr ? pool.zero(piece.backingOffset, piece.length)
                                        : pool.write(piece.backingOffset, bytes + piece.at, piece.length);
    if (failed != 0) return failed;
  }
  for (const ThinPlan::Piece& piece : plan.pieces) {
    if (piece.step == Step::kInPlace) continue;
    if (piece.step == Step::kHole) {
      const int failed = pool.publishHoles(thin.layer, piece.block, piece.blockCount);
      if (failed != 0) return failed;
      table.clear(piece.block, piece.blockCount);
      faults.changed(piece.block, piece.blockCount);
      continue;
    }
    const uint64_t location = piece.backingOffset / table.blockBytes();
    for (uint64_t index = 0; index < piece.blockCount; index++) {
      const uint64_t block = piece.block + index;
      const int failed = pool.publishMap(thin.layer, block, location + index);
      if (failed != 0) return failed;
      table.install(block, Extent{true, true, true, location + index});
      thin.places.published(block);
      faults.changed(block, 1);
    }
  }
  return 0;
}

}  // namespace tidemark

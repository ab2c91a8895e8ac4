// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "../extent/extent_table.h"
#include "../extent/fault_queue.h"
#include "../extent/given_places.h"
#include "../pool/pool.h"

/**
 * What a change of a thin volume comes to: which bytes go where, and what the pool's log is told.
 *
 * A block that is covered and becomes all zeros takes no space: it is a hole, if it is mapped. A block that is covered
 * by a write goes to the place that was reserved for it. Anything else is done in place, or is not mapped and zeros
 * already, or asks for a fault.
 */
namespace tidemark {

/** What makes a volume thin: a layer of a pool that it writes to. */
struct ThinLayer {
  ThinLayer(std::shared_ptr<Pool> pool, uint32_t layer) : pool(std::move(pool)), layer(layer) {}

  /** Null once the volume is closed. */
  std::shared_ptr<Pool> pool;
  /** Changed by freeze() alone, when nobody is inside the gate and no grant is carried out. */
  uint32_t layer;
  GivenPlaces places;
  /** False: the pool has no room for more holes. Zeros are written like anything else, discards are refused. */
  std::atomic<bool> makesHoles{true};
};

struct ThinPlan {
  enum class Step : uint8_t { kInPlace, kReserved, kHole };
  struct Piece {
    Step step;
    /** From the request's beginning. Not for holes. */
    uint64_t at;
    uint64_t length;
    /** Where it goes. Not for holes. */
    uint64_t backingOffset;
    /** Whole blocks. Not in place. */
    uint64_t block;
    uint64_t blockCount;
  };
  /** In order of their blocks, neighbours joined. */
  std::vector<Piece> pieces;
};

/**
 * Decide what a write does. With the request's range locked; what is decided then holds until it is unlocked.
 * Faults, if any, are added in block order: the plan is then of no use, and it is to be made again when they are answered.
 */
void planWrite(const ExtentTable& table, const ThinLayer& thin, uint64_t offset, const uint8_t* bytes, uint64_t length,
               ThinPlan& plan, std::vector<Fault>& faults);
/** The same for a trim or zeroing. A leaf that lies wholly inside need not be known. */
void planDiscard(const ExtentTable& table, uint64_t offset, uint64_t length, ThinPlan& plan, std::vector<Fault>& faults);

/**
 * Do it; `bytes` is null for a discard. 0 or an errno: the table, and the log, then still say the old things of each
 * block whose data are not in its new place.
 *
 * Order, for each block that gets a new place: (1) its data are there, (2) the log says so, (3) the table shows it. The
 * host's answer comes after that. With 2 before 1 a crash would show bytes of another volume; with 3 before 2 a write
 * that was acknowledged could be lost with the process.
 */
int carryOut(ExtentTable& table, ThinLayer& thin, FaultQueue& faults, const ThinPlan& plan, const uint8_t* bytes);

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "../../native/journal/journal_format.h"

/** A reader of its own, so that the writer is not checked by what it shares with it. */
namespace tidemark::test {

struct WalkedRecord {
  RecordHeader header{};
  std::string payload;
  bool complete = false;
  bool payloadSound = false;
};

/** The segment files' base LSNs, ascending. */
std::vector<uint64_t> segmentBases(const std::string& folder);
/** Files whose name begins with `spare-`. */
size_t spareCount(const std::string& folder);

/** Records from `from` until the first place with no valid header or `to`, PAD included. */
std::vector<WalkedRecord> walk(const std::string& folder, const JournalId& id, uint64_t segmentBytes, uint64_t from,
                               uint64_t to = UINT64_MAX);

}  // namespace tidemark::test

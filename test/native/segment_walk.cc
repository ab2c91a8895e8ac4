// SPDX-License-Identifier: Apache-2.0
#include "segment_walk.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "../../native/sys/crc32c.h"

namespace tidemark::test {

std::vector<uint64_t> segmentBases(const std::string& folder) {
  std::vector<uint64_t> bases;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (name.size() == 20 && name.ends_with(".seg")) bases.push_back(std::stoull(name, nullptr, 16));
  }
  std::sort(bases.begin(), bases.end());
  return bases;
}

size_t spareCount(const std::string& folder) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with("spare-")) ++count;
  }
  return count;
}

std::vector<WalkedRecord> walk(const std::string& folder, const JournalId& id, uint64_t segmentBytes, uint64_t from,
                               uint64_t to) {
  const uint32_t seed = crc32cTable(id.data(), id.size());
  std::vector<WalkedRecord> records;
  std::string bytes;
  uint64_t loaded = UINT64_MAX;
  uint32_t incarnation = 0;
  uint64_t at = from;
  while (at < to) {
    if (at % segmentBytes == 0) at += kSegmentHeaderBytes;
    const uint64_t base = at - at % segmentBytes;
    if (base != loaded) {
      char name[32];
      std::snprintf(name, sizeof name, "/%016" PRIx64 ".seg", base);
      std::ifstream file(folder + name, std::ios::binary);
      if (!file) break;
      bytes.assign(std::istreambuf_iterator<char>(file), {});
      SegmentHeader header{};
      if (bytes.size() != segmentBytes) break;
      std::memcpy(&header, bytes.data(), sizeof header);
      if (header.baseLsn != base || header.crc != crc32cTable(&header, 44) || header.journalId != id) break;
      loaded = base;
    }
    WalkedRecord record;
    RecordHeader& header = record.header;
    std::memcpy(&header, bytes.data() + (at - base), sizeof header);
    const bool valid = header.magic == kRecordMagic && header.headerCrc == crc32cTable(&header, 48, seed) &&
                       header.lsn == at && header.incarnation >= incarnation &&
                       at - base + recordSpace(header.payloadBytes) <= segmentBytes;
    if (!valid) break;
    incarnation = header.incarnation;
    record.complete = header.commit == crc32cTable(&header, 56, seed);
    record.payload = bytes.substr(at - base + sizeof header, header.payloadBytes);
    const bool carries = header.type == 1 || header.type == 4;
    const uint32_t crc = carries && header.payloadBytes > 0 ? crc32cTable(record.payload.data(), header.payloadBytes) : 0;
    record.payloadSound = header.payloadCrc == crc;
    at += recordSpace(header.payloadBytes);
    records.push_back(std::move(record));
  }
  return records;
}

}  // namespace tidemark::test

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

/** The region record on disk; src/journal/FORMAT.md says what each field means. Little-endian. */
namespace tidemark {

constexpr uint32_t kRegionMagic = 0x47524d54;  // "TMRG"
constexpr uint16_t kRegionVersion = 1;
constexpr uint16_t kRegionHeaderBytes = 4096;
/** One sector, so that a power cut leaves a page old or new. */
constexpr uint64_t kRegionPageBytes = 512;
constexpr uint64_t kRegionPageWords = 62;

struct RegionHeader {
  uint32_t magic;
  uint16_t version;
  uint16_t headerLength;
  uint8_t recordId[16];
  uint64_t regionBytes;
  uint64_t regionCount;
  uint32_t writerVersion;
  uint32_t crc;
};
static_assert(sizeof(RegionHeader) == 48);
static_assert(offsetof(RegionHeader, recordId) == 8);
static_assert(offsetof(RegionHeader, regionBytes) == 24);
static_assert(offsetof(RegionHeader, regionCount) == 32);
static_assert(offsetof(RegionHeader, crc) == 44);

struct RegionPage {
  uint32_t crc;
  uint32_t number;
  uint64_t zero;
  uint64_t words[kRegionPageWords];
};
static_assert(sizeof(RegionPage) == kRegionPageBytes);
static_assert(offsetof(RegionPage, words) == 16);

}  // namespace tidemark

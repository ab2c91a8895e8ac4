// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

/**
 * The journal on disk, as src/journal/FORMAT.md describes it. Little-endian: the stored structs are written as they lie
 * in memory, so only little-endian machines are built for.
 */
namespace tidemark {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the journal's stored structs are little-endian");

using JournalId = std::array<uint8_t, 16>;

constexpr uint32_t kSegmentMagic = 0x47534d54;  // "TMSG"
constexpr uint16_t kSegmentVersion = 1;
constexpr uint32_t kSegmentHeaderBytes = 4096;
constexpr uint32_t kWriterVersion = 0x000100;  // 0.1.0

constexpr uint32_t kRecordMagic = 0x524a4d54;  // "TMJR"
constexpr uint32_t kRecordHeaderBytes = 64;
constexpr uint16_t kNoVolume = 0xffff;
constexpr uint32_t kMarkerPayloadLimitBytes = 64 * 1024;

enum class RecordType : uint8_t { kWrite = 1, kZero = 2, kTrim = 3, kMarker = 4, kPad = 5, kVoid = 6 };

struct SegmentHeader {
  uint32_t magic;
  uint16_t version;
  uint16_t headerLength;
  uint64_t baseLsn;
  JournalId journalId;
  uint64_t segmentBytes;
  uint32_t writerVersion;
  uint32_t crc;
};
static_assert(sizeof(SegmentHeader) == 48);
static_assert(offsetof(SegmentHeader, baseLsn) == 8);
static_assert(offsetof(SegmentHeader, journalId) == 16);
static_assert(offsetof(SegmentHeader, segmentBytes) == 32);
static_assert(offsetof(SegmentHeader, crc) == 44);

struct RecordHeader {
  uint32_t magic;
  uint8_t type;
  uint8_t flags;
  uint16_t volume;
  uint64_t lsn;
  uint64_t offset;
  uint64_t length;
  uint64_t time;
  uint32_t payloadBytes;
  uint32_t incarnation;
  uint32_t headerCrc;
  uint32_t payloadCrc;
  uint32_t commit;
  uint32_t zero;
};
static_assert(sizeof(RecordHeader) == kRecordHeaderBytes);
static_assert(offsetof(RecordHeader, lsn) == 8);
static_assert(offsetof(RecordHeader, offset) == 16);
static_assert(offsetof(RecordHeader, length) == 24);
static_assert(offsetof(RecordHeader, time) == 32);
static_assert(offsetof(RecordHeader, payloadBytes) == 40);
static_assert(offsetof(RecordHeader, incarnation) == 44);
static_assert(offsetof(RecordHeader, headerCrc) == 48);
static_assert(offsetof(RecordHeader, payloadCrc) == 52);
static_assert(offsetof(RecordHeader, commit) == 56);

/** Bytes a record takes in the segment. */
constexpr uint64_t recordSpace(uint64_t payloadBytes) {
  return (kRecordHeaderBytes + payloadBytes + 63) & ~uint64_t{63};
}

}  // namespace tidemark

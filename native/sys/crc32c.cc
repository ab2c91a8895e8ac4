// SPDX-License-Identifier: Apache-2.0
#include "crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace tidemark {
namespace {

constexpr uint32_t polynomial = 0x82f63b78u;

using Table = std::array<uint32_t, 256>;

constexpr std::array<Table, 8> makeTables() {
  std::array<Table, 8> tables{};
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1u) ? polynomial : 0u);
    tables[0][byte] = crc;
  }
  for (uint32_t byte = 0; byte < 256; byte++) {
    for (size_t slice = 1; slice < 8; slice++) {
      const uint32_t before = tables[slice - 1][byte];
      tables[slice][byte] = (before >> 8) ^ tables[0][before & 0xffu];
    }
  }
  return tables;
}

constexpr std::array<Table, 8> tables = makeTables();

#if defined(__x86_64__)

// One crc32 instruction has a latency of three cycles and a throughput of one, so three independent lanes are run
// side by side and joined: the checksum of a lane followed by n bytes is that of the lane shifted by n zero bytes,
// a linear map kept as four tables of 256.
constexpr size_t laneBytes = 1024;

using Matrix = std::array<uint32_t, 32>;

constexpr uint32_t multiply(const Matrix& matrix, uint32_t vector) {
  uint32_t sum = 0;
  for (size_t bit = 0; vector != 0; bit++, vector >>= 1) {
    if (vector & 1u) sum ^= matrix[bit];
  }
  return sum;
}

constexpr std::array<Table, 4> makeShift(size_t zeroBytes) {
  Matrix matrix{};
  matrix[0] = polynomial;
  for (size_t bit = 1; bit < 32; bit++) matrix[bit] = 1u << (bit - 1);
  // zeroBytes is a power of two: square the one-bit map log2(8 * zeroBytes) times.
  for (size_t bits = 1; bits < zeroBytes * 8; bits *= 2) {
    Matrix square{};
    for (size_t bit = 0; bit < 32; bit++) square[bit] = multiply(matrix, matrix[bit]);
    matrix = square;
  }
  std::array<Table, 4> shift{};
  for (uint32_t byte = 0; byte < 256; byte++) {
    for (size_t part = 0; part < 4; part++) shift[part][byte] = multiply(matrix, byte << (8 * part));
  }
  return shift;
}

const std::array<Table, 4>& laneShift() {
  static const std::array<Table, 4> shift = makeShift(laneBytes);
  return shift;
}

uint32_t shifted(const std::array<Table, 4>& shift, uint32_t crc) {
  return shift[0][crc & 0xffu] ^ shift[1][(crc >> 8) & 0xffu] ^ shift[2][(crc >> 16) & 0xffu] ^ shift[3][crc >> 24];
}

uint64_t load64(const unsigned char* bytes) {
  uint64_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

__attribute__((target("sse4.2"))) uint32_t crc32cSse(const unsigned char* bytes, size_t length, uint32_t previous) {
  uint64_t crc = ~previous;
  if (length >= 3 * laneBytes) {
    const std::array<Table, 4>& shift = laneShift();
    while (length >= 3 * laneBytes) {
      uint64_t second = 0;
      uint64_t third = 0;
      for (size_t at = 0; at < laneBytes; at += 8) {
        crc = _mm_crc32_u64(crc, load64(bytes + at));
        second = _mm_crc32_u64(second, load64(bytes + at + laneBytes));
        third = _mm_crc32_u64(third, load64(bytes + at + 2 * laneBytes));
      }
      crc = shifted(shift, static_cast<uint32_t>(crc)) ^ second;
      crc = shifted(shift, static_cast<uint32_t>(crc)) ^ third;
      bytes += 3 * laneBytes;
      length -= 3 * laneBytes;
    }
  }
  for (; length >= 8; bytes += 8, length -= 8) crc = _mm_crc32_u64(crc, load64(bytes));
  uint32_t tail = static_cast<uint32_t>(crc);
  for (; length > 0; bytes++, length--) tail = _mm_crc32_u8(tail, *bytes);
  return ~tail;
}

bool hasSse42() {
  static const bool has = __builtin_cpu_supports("sse4.2") != 0;
  return has;
}

#endif

}  // namespace

uint32_t crc32cTable(const void* data, size_t length, uint32_t previous) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  uint32_t crc = ~previous;
  for (; length >= 8; bytes += 8, length -= 8) {
    crc ^= static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
           static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
    crc = tables[7][crc & 0xffu] ^ tables[6][(crc >> 8) & 0xffu] ^ tables[5][(crc >> 16) & 0xffu] ^
          tables[4][crc >> 24] ^ tables[3][bytes[4]] ^ tables[2][bytes[5]] ^ tables[1][bytes[6]] ^ tables[0][bytes[7]];
  }
  for (; length > 0; bytes++, length--) crc = (crc >> 8) ^ tables[0][(crc ^ *bytes) & 0xffu];
  return ~crc;
}

uint32_t crc32c(const void* data, size_t length, uint32_t previous) {
#if defined(__x86_64__)
  if (hasSse42()) return crc32cSse(static_cast<const unsigned char*>(data), length, previous);
#endif
  return crc32cTable(data, length, previous);
}

}  // namespace tidemark

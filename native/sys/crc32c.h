// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace tidemark {

/**
 * CRC-32C (Castagnoli) of `length` bytes, continued from `previous` (0 to begin), final XOR included:
 * crc32c(b, n2, crc32c(a, n1)) is the checksum of a followed by b. The same value @node-rs/crc32 gives.
 *
 * SSE4.2 where the processor has it (looked up once), a table otherwise.
 */
uint32_t crc32c(const void* bytes, size_t length, uint32_t previous = 0);

/** The table way, whatever the processor: for tests. */
uint32_t crc32cTable(const void* bytes, size_t length, uint32_t previous = 0);

}  // namespace tidemark

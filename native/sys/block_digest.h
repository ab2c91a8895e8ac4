// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace tidemark {

constexpr size_t kDigestBlockBytes = 4096;
constexpr size_t kDigestWords = 4;
/** A word for each of the block's, and two for the second pass. */
constexpr size_t kDigestKeyWords = kDigestBlockBytes / 8 + 2;

/**
 * A digest of a block under a random key: NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: UMAC, CRYPTO '99) on words of
 * 64 bits, twice, the second time with the key shifted by two words (their Toeplitz construction).
 *
 * Two blocks that differ, chosen by somebody who does not know the key, have the same digest with a chance of 2^-128 at
 * the most. It hides nothing: a digest must not be shown to anybody. Words as this machine has them: it is not for disks.
 */
void blockDigest(const uint64_t key[kDigestKeyWords], const uint8_t* block, uint64_t digest[kDigestWords]);

}  // namespace tidemark

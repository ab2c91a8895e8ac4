// SPDX-License-Identifier: Apache-2.0
#include "../../native/sys/block_digest.h"

#include <algorithm>
#include <array>
#include <random>
#include <vector>

#include "check.h"

using namespace tidemark;
using namespace tidemark::test;

namespace {

constexpr size_t words = kDigestBlockBytes / 8;
using Digest = std::array<uint64_t, kDigestWords>;

Digest digestOf(const std::vector<uint64_t>& key, const std::vector<uint64_t>& block, size_t unaligned = 0) {
  std::vector<uint8_t> bytes(kDigestBlockBytes + unaligned);
  std::copy_n(reinterpret_cast<const uint8_t*>(block.data()), kDigestBlockBytes, bytes.data() + unaligned);
  Digest digest;
  blockDigest(key.data(), bytes.data() + unaligned, digest.data());
  return digest;
}

}  // namespace

TEST("a digest is the sum of products of keyed words, wherever the block lies in memory") {
  // Products that carry into the upper half: (2^64 - 1)^2 = 2^128 - 2^65 + 1, 256 times, is 256 - 2^73 modulo 2^128.
  const std::vector<uint64_t> key(kDigestKeyWords, 0);
  const std::vector<uint64_t> block(words, UINT64_MAX);
  const Digest expected = {256, UINT64_MAX - 511, 256, UINT64_MAX - 511};
  CHECK(digestOf(key, block) == expected);
  CHECK(digestOf(key, block, 3) == expected);
  // The second pass has the key two words on.
  std::vector<uint64_t> counting(kDigestKeyWords);
  for (size_t at = 0; at < counting.size(); at++) counting[at] = at;
  std::vector<uint64_t> one(words, 0);
  uint64_t first = 0, second = 0;
  for (uint64_t at = 0; at < words; at += 2) {
    first += at * (at + 1);
    second += (at + 2) * (at + 3);
  }
  CHECK((digestOf(counting, one) == Digest{first, 0, second, 0}));
}

TEST("any bit of a block changes both halves of its digest") {
  std::mt19937_64 random(seed());
  std::vector<uint64_t> key(kDigestKeyWords), block(words);
  for (uint64_t& word : key) word = random();
  for (uint64_t& word : block) word = random();
  const Digest before = digestOf(key, block);
  bool differs = true;
  for (size_t bit = 0; bit < kDigestBlockBytes * 8; bit++) {
    block[bit / 64] ^= uint64_t{1} << bit % 64;
    const Digest after = digestOf(key, block);
    differs = differs && (after[0] != before[0] || after[1] != before[1]) &&
              (after[2] != before[2] || after[3] != before[3]);
    block[bit / 64] ^= uint64_t{1} << bit % 64;
  }
  CHECK(differs);
  CHECK(digestOf(key, block) == before);
}

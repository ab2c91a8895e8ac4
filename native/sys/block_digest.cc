// SPDX-License-Identifier: Apache-2.0
#include "block_digest.h"

#include <cstring>

namespace tidemark {
namespace {

__extension__ using Wide = unsigned __int128;

void store(Wide sum, uint64_t words[2]) {
  words[0] = static_cast<uint64_t>(sum);
  words[1] = static_cast<uint64_t>(sum >> 64);
}

}  // namespace

void blockDigest(const uint64_t key[kDigestKeyWords], const uint8_t* block, uint64_t digest[kDigestWords]) {
  Wide first = 0;
  Wide second = 0;
  for (size_t at = 0; at < kDigestBlockBytes / 8; at += 2) {
    uint64_t words[2];
    std::memcpy(words, block + at * 8, sizeof words);
    // Sums wrap, as the construction wants them to.
    first += Wide{words[0] + key[at]} * (words[1] + key[at + 1]);
    second += Wide{words[0] + key[at + 2]} * (words[1] + key[at + 3]);
  }
  store(first, digest);
  store(second, digest + 2);
}

}  // namespace tidemark

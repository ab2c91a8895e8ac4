// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace tidemark {

/**
 * Make the kernel ask whoever serves this file for its size until it has this one. It drops an answer when a write has
 * ended since it asked, which under load is most of the time.
 * @return 0 or an errno; EAGAIN: still another size after two seconds
 */
int askForSize(const char* path, uint64_t sizeBytes);

}  // namespace tidemark

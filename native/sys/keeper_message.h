// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace tidemark {

/** To the keeper. With a descriptor: the switch of this connection. Without one: the connection has ended. */
struct KeeperMessage {
  /** Whatever names it for as long as the agent lives. */
  uint64_t connection = 0;
};
static_assert(sizeof(KeeperMessage) == 8);

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "unique_fd.h"

/**
 * The agent's side of native/keeper: a small program that ends the agent's FUSE connections when it is killed, so that
 * none of its own threads waits for one for ever. It is started at the first connection, and ends with the agent.
 *
 * Where that program is not beside this code (a test built without it), connections do without.
 */
namespace tidemark {

/** From here on the connection ends with the agent's threads, however they end. @return its name for keeperForget() */
uint64_t keeperWatch(const UniqueFd& connectionSwitch);
/** The connection has ended. 0: nothing to do. */
void keeperForget(uint64_t connection);

}  // namespace tidemark

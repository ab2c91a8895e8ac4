// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "result.h"
#include "unique_fd.h"

/** The program of native/keeper, which lies beside the file that this code is in. */
namespace tidemark {

/**
 * Start it with this end of a socket as its standard input and nothing else of ours, in a session of its own. The kernel
 * tells it when the thread that calls this ends.
 * @param directory where it listens; empty: nowhere
 * @return 0: not started
 */
pid_t startKeeperProgram(const UniqueFd& socket, const std::string& directory);

/**
 * askForSize() in another process: an agent that waited for itself when it was killed would never end. Where the program
 * is missing, this thread asks. @error MOUNT_FAILED
 */
Result<void> askApart(const std::string& path, uint64_t sizeBytes);

}  // namespace tidemark

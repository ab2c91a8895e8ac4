// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "../sys/unique_fd.h"

namespace tidemark {

/** A device that hosts use: `/dev/loop3`, and the file below it. */
struct HostDevice {
  std::string loop;
  std::string mountPoint;
};

/**
 * Whether each thread that is left of a process waits in the kernel for storage that lies on none of these devices: it ends
 * when that storage answers, whatever becomes of them. False also when it cannot be told.
 *
 * Reads /proc and /sys, and asks no file system: any of them may be the one that hangs.
 * @param process a pidfd
 */
bool waitsElsewhere(const UniqueFd& process, const std::vector<HostDevice>& devices);

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace tidemark {

/** One line of /proc/self/mountinfo. */
struct MountEntry {
  dev_t device = 0;
  std::string mountPoint;
  std::string type;
  std::string source;
};

std::vector<MountEntry> listMounts();

/**
 * Who keeps a block device busy, for people: `mounted on /srv`, `in use by fio (pid 4711)`, `held by dm-3`,
 * `in use as swap`. Empty when nobody is found. The caller's own descriptor `ownFd` is not counted.
 *
 * A snapshot taken without locks: who comes or goes meanwhile may be missed, so it explains a refusal by the kernel
 * or precedes a step that checks again; it is never the only guard.
 */
std::string describeDeviceHolders(dev_t device, int ownFd = -1);

/** Processes with this file open, as above. */
std::string describeFileHolders(dev_t filesystem, ino_t inode, int ownFd = -1);

/** The loop device that has this file as its backing (`/dev/loop3`), or empty. */
std::string loopDeviceOf(dev_t filesystem, ino_t inode);

}  // namespace tidemark

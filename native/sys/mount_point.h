// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "result.h"

namespace tidemark {

/** Mount the FUSE connection `fuseFd` on a regular file, which then reads as the volume. @error MOUNT_FAILED */
Result<void> mountFuseFile(int fuseFd, const std::string& mountPoint);

/**
 * Unmount what lies on `mountPoint`.
 *
 * @error DEVICE_BUSY with who has the file open (retried for two seconds first); MOUNT_FAILED
 */
Result<void> unmountFuseFile(const std::string& mountPoint);

/** Unmount at once, whoever uses it: they get errors. For cleaning up after a failure. */
void forceUnmount(const std::string& mountPoint);

/**
 * Release what a dead agent left on this mount point: loop devices bound to the file, and the mount itself.
 * A loop device that is still mounted stays until it is unmounted, then the kernel frees it.
 *
 * @error MOUNT_FAILED when the mount cannot be taken away
 */
Result<void> releaseStaleMount(const std::string& mountPoint);

}  // namespace tidemark

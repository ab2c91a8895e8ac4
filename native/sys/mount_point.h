// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "result.h"
#include "unique_fd.h"

namespace tidemark {

/** A file's path as the kernel shows it, without touching the last component: a mount there may be dead, or not answer. */
std::string kernelPath(const std::string& file);

/** Mount the FUSE connection `fuseFd` on a regular file, which then reads as the volume. @error MOUNT_FAILED */
Result<void> mountFuseFile(int fuseFd, const std::string& mountPoint);

/**
 * Unmount what lies on `mountPoint`.
 *
 * @error DEVICE_BUSY with who has the file open (retried for two seconds first); MOUNT_FAILED
 */
Result<void> unmountFuseFile(const std::string& mountPoint);

/**
 * The kernel's switch for the FUSE connection mounted on `mountPoint`: see abortConnection(). It does not keep the
 * connection alive and, other than the connection's number, never comes to mean another one.
 *
 * @error FUSE_UNAVAILABLE
 */
Result<UniqueFd> openConnectionSwitch(const std::string& mountPoint);

/** End the connection, whoever holds its file open: they get errors, its readers ENODEV. Nothing when it has ended. */
void abortConnection(const UniqueFd& connectionSwitch);

/** The same by the place alone, whoever holds it. False: no front end is mounted there, or its switch cannot be had. */
bool endMounted(const std::string& mountPoint);

/** Take the mount out of the tree at once; the filesystem lives on for who has the file open. @error MOUNT_FAILED */
Result<void> unmountLazily(const std::string& mountPoint);

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

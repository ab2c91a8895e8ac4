// SPDX-License-Identifier: Apache-2.0
#include "mount_point.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>

#include "holders.h"
#include "loop_device.h"

namespace tidemark {
namespace {

constexpr char filesystemType[] = "fuse.tidemark";
constexpr int maximumUnmountAttempts = 40;
constexpr auto pause = std::chrono::milliseconds(50);
/** Mounts stacked on one file by agents that died one after another. */
constexpr int maximumStackedMounts = 64;

bool isMounted(const std::string& path) {
  const std::vector<MountEntry> mounts = listMounts();
  return std::any_of(mounts.begin(), mounts.end(), [&path](const MountEntry& mount) {
    return mount.type == filesystemType && mount.mountPoint == path;
  });
}

}  // namespace

std::string kernelPath(const std::string& file) {
  const size_t slash = file.find_last_of('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : file.substr(0, slash);
  const std::string name = slash == std::string::npos ? file : file.substr(slash + 1);
  const std::unique_ptr<char, void (*)(void*)> real(realpath(folder.c_str(), nullptr), free);
  const std::string base = real ? real.get() : folder;
  return base == "/" ? base + name : base + "/" + name;
}

Result<void> mountFuseFile(int fuseFd, const std::string& mountPoint) {
  struct stat status;
  if (stat(mountPoint.c_str(), &status) != 0) return Error::fromErrno("MOUNT_FAILED", mountPoint, errno);
  if (!S_ISREG(status.st_mode)) return Error{"MOUNT_FAILED", EINVAL, mountPoint + " is not a regular file"};
  const std::string options =
      "fd=" + std::to_string(fuseFd) + ",rootmode=100600,user_id=0,group_id=0,default_permissions";
  if (mount("tidemark", mountPoint.c_str(), filesystemType, MS_NOSUID | MS_NODEV | MS_NOATIME, options.c_str()) == 0) {
    return {};
  }
  return Error::fromErrno("MOUNT_FAILED", "mount on " + mountPoint, errno);
}

Result<void> unmountFuseFile(const std::string& mountPoint) {
  for (int attempt = 0; attempt < maximumUnmountAttempts; attempt++) {
    if (umount2(mountPoint.c_str(), UMOUNT_NOFOLLOW) == 0) return {};
    if (errno == EINVAL && !isMounted(kernelPath(mountPoint))) return {};
    if (errno != EBUSY) return Error::fromErrno("MOUNT_FAILED", "unmount " + mountPoint, errno);
    std::this_thread::sleep_for(pause);
  }
  std::string holders;
  struct statx file;
  // Without asking who serves it: that may be this program, or one that hangs.
  if (statx(AT_FDCWD, mountPoint.c_str(), AT_STATX_DONT_SYNC, STATX_INO, &file) == 0) {
    holders = describeFileHolders(makedev(file.stx_dev_major, file.stx_dev_minor), file.stx_ino);
  }
  return Error{"DEVICE_BUSY", EBUSY, mountPoint + " is " + (holders.empty() ? "in use" : holders)};
}

Result<UniqueFd> openConnectionSwitch(const std::string& mountPoint) {
  struct statx status;
  // Without asking the server: nobody may serve it yet.
  if (statx(AT_FDCWD, mountPoint.c_str(), AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC, 0, &status) != 0) {
    return Error::fromErrno("FUSE_UNAVAILABLE", "stat " + mountPoint, errno);
  }
  // A mount of its own that appears nowhere: the one in /sys may be absent.
  const UniqueFd context(fsopen("fusectl", FSOPEN_CLOEXEC));
  if (!context || fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return Error::fromErrno("FUSE_UNAVAILABLE", "open the control filesystem of FUSE", errno);
  }
  const UniqueFd control(fsmount(context.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
  if (!control) return Error::fromErrno("FUSE_UNAVAILABLE", "mount the control filesystem of FUSE", errno);
  // The major number of a FUSE mount is 0, so its minor is the connection's number.
  const std::string file = std::to_string(status.stx_dev_minor) + "/abort";
  UniqueFd connectionSwitch(openat(control.get(), file.c_str(), O_WRONLY | O_CLOEXEC));
  if (!connectionSwitch) return Error::fromErrno("FUSE_UNAVAILABLE", "open the connection's " + file, errno);
  return connectionSwitch;
}

void abortConnection(const UniqueFd& connectionSwitch) {
  while (connectionSwitch && write(connectionSwitch.get(), "1", 1) < 0 && errno == EINTR) {
  }
}

bool endMounted(const std::string& mountPoint) {
  if (!isMounted(kernelPath(mountPoint))) return false;
  const Result<UniqueFd> connectionSwitch = openConnectionSwitch(mountPoint);
  if (connectionSwitch) abortConnection(connectionSwitch.value());
  return connectionSwitch.ok();
}

Result<void> unmountLazily(const std::string& mountPoint) {
  if (umount2(mountPoint.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0 || errno == EINVAL) return {};
  return Error::fromErrno("MOUNT_FAILED", "unmount " + mountPoint, errno);
}

void forceUnmount(const std::string& mountPoint) {
  umount2(mountPoint.c_str(), MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW);
}

Result<void> releaseStaleMount(const std::string& mountPoint) {
  const std::string path = kernelPath(mountPoint);
  // Whoever may still hold it: closing a loop device waits until what its cache holds is written, or refused.
  endMounted(mountPoint);
  // The loop devices first: while one is bound it keeps the dead filesystem alive.
  for (const std::string& device : loopDevicesByBackingPath(path)) unbindWhenUnused(device, path);
  for (int attempt = 0; attempt < maximumStackedMounts && isMounted(path); attempt++) {
    if (umount2(path.c_str(), MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW) == 0) continue;
    if (errno == EINVAL) break;
    return Error::fromErrno("MOUNT_FAILED", "unmount " + mountPoint, errno);
  }
  return {};
}

}  // namespace tidemark

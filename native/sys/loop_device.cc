// SPDX-License-Identifier: Apache-2.0
#include "loop_device.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <memory>
#include <thread>

#include "holders.h"

namespace tidemark {
namespace {

constexpr int maximumBindAttempts = 64;
/** How long a passer-by (udev, blkid) may keep the device open before a release is refused. */
constexpr auto patience = std::chrono::seconds(2);
constexpr auto pause = std::chrono::milliseconds(50);

Error busy(const std::string& path, const std::string& holders) {
  return Error{"DEVICE_BUSY", EBUSY, path + " is " + (holders.empty() ? "in use" : holders)};
}

}  // namespace

Result<LoopDevice> LoopDevice::bind(int file, bool readOnly, uint32_t blockBytes) {
  const UniqueFd control(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control) return Error::fromErrno("LOOP_FAILED", "open /dev/loop-control", errno);
  struct stat status;
  if (fstat(file, &status) != 0) return Error::fromErrno("LOOP_FAILED", "stat the file to bind", errno);
  for (int attempt = 0; attempt < maximumBindAttempts; attempt++) {
    const int number = ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return Error::fromErrno("LOOP_FAILED", "no free loop device", errno);
    LoopDevice device("/dev/loop" + std::to_string(number), status.st_dev, status.st_ino);
    const UniqueFd fd(open(device.path_.c_str(), (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC));
    if (!fd) return Error::fromErrno("LOOP_FAILED", "open " + device.path_, errno);
    loop_config config{};
    config.fd = static_cast<uint32_t>(file);
    config.block_size = blockBytes;
    config.info.lo_flags = LO_FLAGS_DIRECT_IO | (readOnly ? LO_FLAGS_READ_ONLY : 0);
    if (ioctl(fd.get(), LOOP_CONFIGURE, &config) == 0) return device;
    if (errno == EBUSY) continue;  // Another program was faster: ask for the next free one.
    return Error::fromErrno("LOOP_FAILED", "configure " + device.path_, errno);
  }
  return Error{"LOOP_FAILED", EBUSY, "every loop device offered was taken by another program"};
}

Result<bool> LoopDevice::isBound() const {
  const UniqueFd fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd) return isBound(fd.get());
  if (errno == ENOENT || errno == ENXIO || errno == ENODEV) return false;  // The device itself was taken away.
  return Error::fromErrno("LOOP_FAILED", "open " + path_, errno);
}

/** While `fd` is open nobody can unbind the device, so the answer holds until it is closed. */
Result<bool> LoopDevice::isBound(int fd) const {
  loop_info64 info{};
  if (ioctl(fd, LOOP_GET_STATUS64, &info) == 0) return info.lo_device == filesystem_ && info.lo_inode == inode_;
  if (errno == ENXIO) return false;
  return Error::fromErrno("LOOP_FAILED", "ask which file is bound to " + path_, errno);
}

Result<void> LoopDevice::release(const std::function<void()>& onUnused) {
  // First of all: a device that is somebody else's by now may be mounted, which is no reason to refuse.
  Result<bool> ours = isBound();
  if (!ours) return ours.error();
  if (!*ours) return {};
  const auto deadline = std::chrono::steady_clock::now() + patience;
  dev_t device = 0;
  {
    // A mounted or claimed device refuses an exclusive open. Nothing was changed yet, so refusing is safe.
    UniqueFd claim(open(path_.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
    while (!claim && errno == EBUSY && std::chrono::steady_clock::now() < deadline) {
      struct stat status;
      if (stat(path_.c_str(), &status) == 0) {
        const std::string holders = describeDeviceHolders(status.st_rdev);
        if (!holders.empty()) return busy(path_, holders);
      }
      std::this_thread::sleep_for(pause);
      claim.reset(open(path_.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
    }
    if (!claim) return errno == EBUSY ? busy(path_, "") : Error::fromErrno("LOOP_FAILED", "open " + path_, errno);
    struct stat status;
    if (fstat(claim.get(), &status) != 0) return Error::fromErrno("LOOP_FAILED", "stat " + path_, errno);
    device = status.st_rdev;
    // Plain openers do not stand in the way of the claim: they are looked for.
    std::string holders = describeDeviceHolders(device, claim.get());
    while (!holders.empty() && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(pause);
      holders = describeDeviceHolders(device, claim.get());
    }
    if (!holders.empty()) return busy(path_, holders);
    Result<bool> bound = isBound(claim.get());
    if (!bound) return bound.error();
    if (!*bound) return {};
    if (onUnused) onUnused();
    if (ioctl(claim.get(), LOOP_CLR_FD) != 0) {
      if (errno == ENXIO) return {};
      return errno == EBUSY ? busy(path_, "") : Error::fromErrno("LOOP_FAILED", "detach " + path_, errno);
    }
  }
  // With another opener the kernel only promises to unbind at the last close (autoclear). Give a passer-by its time,
  // then take the promise back: a device that may vanish at any close is no state to leave behind.
  for (;;) {
    Result<bool> bound = isBound();
    if (!bound) return bound.error();
    if (!*bound) return {};
    if (std::chrono::steady_clock::now() >= deadline) break;
    std::this_thread::sleep_for(pause);
  }
  const UniqueFd fd(open(path_.c_str(), O_RDWR | O_CLOEXEC));
  if (fd) {
    Result<bool> bound = isBound(fd.get());
    if (bound && !*bound) return {};
    loop_info64 info{};
    if (bound && ioctl(fd.get(), LOOP_GET_STATUS64, &info) == 0) {
      info.lo_flags &= ~static_cast<uint32_t>(LO_FLAGS_AUTOCLEAR);
      ioctl(fd.get(), LOOP_SET_STATUS64, &info);
    }
  } else if (errno == ENXIO) {
    return {};
  }
  return busy(path_, describeDeviceHolders(device));
}

Result<void> LoopDevice::followFile() const {
  const UniqueFd fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return Error::fromErrno("LOOP_FAILED", "open " + path_, errno);
  Result<bool> bound = isBound(fd.get());
  if (!bound) return bound.error();
  if (!*bound) return {};  // Somebody else's by now, or nobody's: there is nothing to tell.
  if (ioctl(fd.get(), LOOP_SET_CAPACITY) == 0) return {};
  return Error::fromErrno("LOOP_FAILED", "change the size of " + path_, errno);
}

namespace {

/** @param name without /dev/ */
bool hasBackingPath(const std::string& name, const std::string& backingPath) {
  std::ifstream stream("/sys/block/" + name + "/loop/backing_file");
  std::string file;
  std::getline(stream, file);
  return file == backingPath || file == backingPath + " (deleted)";
}

}  // namespace

std::vector<std::string> loopDevicesByBackingPath(const std::string& backingPath) {
  std::vector<std::string> paths;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir("/sys/block"), closedir);
  if (!folder) return paths;
  while (const dirent* entry = readdir(folder.get())) {
    const std::string name = entry->d_name;
    if (name.rfind("loop", 0) == 0 && hasBackingPath(name, backingPath)) paths.push_back("/dev/" + name);
  }
  return paths;
}

void unbindWhenUnused(const std::string& loopPath, const std::string& backingPath) {
  // While it is open nobody else can be given its number.
  const UniqueFd fd(open(loopPath.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd && hasBackingPath(loopPath.substr(loopPath.rfind('/') + 1), backingPath)) ioctl(fd.get(), LOOP_CLR_FD);
}

}  // namespace tidemark

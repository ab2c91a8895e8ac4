// SPDX-License-Identifier: Apache-2.0
#include "foreign_wait.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "../sys/proc_files.h"

namespace tidemark {
namespace {

/** Stacked so deep (a partition on a logical volume on a loop device...) what lies below is not looked for. */
constexpr int depthLimit = 8;

/** System calls that say by their first argument which file they wait for. */
constexpr std::array fileCalls = {
    SYS_read,  SYS_write,  SYS_readv,   SYS_writev,    SYS_pread64,   SYS_pwrite64,  SYS_preadv,         SYS_pwritev,
    SYS_preadv2, SYS_pwritev2, SYS_fsync, SYS_fdatasync, SYS_fallocate, SYS_ftruncate, SYS_sync_file_range};

/** In the stack of who waits for a FUSE server, or opens, closes or configures a block device: which one is not said. */
constexpr std::array ownFrames = {"fuse",      "request_wait_answer", "bdev_",         "blkdev_get", "blkdev_put",
                                  "blkdev_release", "blkdev_open",    "blkdev_ioctl", "loop_",      "lo_ioctl",
                                  "sync_blockdev",  "disk_",          "freeze"};

/** What stands behind `name` at the beginning of a line; empty: no such line. */
std::string fieldOf(const std::string& file, const std::string& name) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (line.rfind(name, 0) == 0) return line.substr(line.find_first_not_of(" \t", name.size()));
  }
  return {};
}

std::string linkAt(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t length = readlink(path.c_str(), target, sizeof target);
  return length <= 0 ? std::string() : std::string(target, static_cast<size_t>(length));
}

struct Mount {
  std::string id, device, mountPoint, type;
};

/** With the octal digits for spaces as they are: paths with such are not found, so cannot be told. */
std::vector<Mount> mounts() {
  std::vector<Mount> all;
  std::ifstream stream("/proc/self/mountinfo");
  for (std::string line; std::getline(stream, line);) {
    std::istringstream fields(line);
    Mount mount;
    std::string parent, root, field;
    fields >> mount.id >> parent >> mount.device >> root >> mount.mountPoint;
    while (fields >> field && field != "-") {
    }
    fields >> mount.type;
    all.push_back(std::move(mount));
  }
  return all;
}

/** Answers for one moment: what is mounted, and the numbers of the devices. */
class Storage {
 public:
  explicit Storage(const std::vector<HostDevice>& devices) : devices_(devices), mounts_(mounts()) {}

  /** The file of a descriptor in this folder of /proc; `descriptors`: its `fd`, beside which lies `fdinfo`. */
  bool isElsewhere(const std::string& thread, const std::string& descriptor) const {
    const std::string target = linkAt(thread + "/fd/" + descriptor);
    if (target.rfind("/dev/", 0) == 0) return isDeviceElsewhere(firstLine("/sys/class/block/" + target.substr(5) + "/dev"), 0);
    const std::string id = fieldOf(thread + "/fdinfo/" + descriptor, "mnt_id:");
    const auto mount = std::find_if(mounts_.begin(), mounts_.end(), [&id](const Mount& each) { return each.id == id; });
    return mount != mounts_.end() && isMountElsewhere(*mount, 0);
  }

 private:
  bool isMountElsewhere(const Mount& mount, int depth) const {
    if (mount.type.rfind("fuse", 0) == 0) {
      return std::none_of(devices_.begin(), devices_.end(),
                          [&mount](const HostDevice& own) { return own.mountPoint == mount.mountPoint; });
    }
    return isDeviceElsewhere(mount.device, depth);
  }

  /** A file system that names no block device (btrfs, overlayfs, a share) may lie on anything. */
  bool isDeviceElsewhere(const std::string& number, int depth) const {
    const std::string folder = "/sys/dev/block/" + number;
    if (number.empty() || depth == depthLimit || access(folder.c_str(), F_OK) != 0) return false;
    for (const HostDevice& own : devices_) {
      if (firstLine("/sys/class/block/" + own.loop.substr(own.loop.rfind('/') + 1) + "/dev") == number) return false;
    }
    if (access((folder + "/partition").c_str(), F_OK) == 0) {
      return isDeviceElsewhere(firstLine(folder + "/../dev"), depth + 1);
    }
    for (const std::string& below : listFolder(folder + "/slaves")) {
      if (!isDeviceElsewhere(firstLine("/sys/class/block/" + below + "/dev"), depth + 1)) return false;
    }
    const std::string file = firstLine(folder + "/loop/backing_file");
    return file.empty() || isFileElsewhere(file, depth + 1);
  }

  bool isFileElsewhere(const std::string& file, int depth) const {
    const Mount* nearest = nullptr;
    for (const Mount& mount : mounts_) {
      const std::string& point = mount.mountPoint;
      const bool below = point == "/" || file == point || file.rfind(point + "/", 0) == 0;
      if (below && (nearest == nullptr || point.size() >= nearest->mountPoint.size())) nearest = &mount;
    }
    return nearest != nullptr && isMountElsewhere(*nearest, depth);
  }

  const std::vector<HostDevice>& devices_;
  const std::vector<Mount> mounts_;
};

/** Its stack can be read and has none of those frames. */
bool isFileWait(const std::string& thread) {
  std::ifstream stack(thread + "/stack");
  int frames = 0;
  for (std::string line; std::getline(stack, line); frames++) {
    const size_t name = line.find("] ");
    if (name == std::string::npos) return false;
    for (const char* own : ownFrames) {
      if (line.find(own, name) != std::string::npos) return false;
    }
  }
  return frames > 0;
}

bool isThreadElsewhere(const std::string& thread, const Storage& storage) {
  if (!isFileWait(thread)) return false;
  std::istringstream call(firstLine(thread + "/syscall"));
  long number = -1;
  std::string argument;
  if (!(call >> number >> argument)) return false;
  if (std::find(fileCalls.begin(), fileCalls.end(), number) == fileCalls.end()) return false;
  return storage.isElsewhere(thread, std::to_string(std::strtol(argument.c_str(), nullptr, 16)));
}

/** `D`, `Z`...; behind the name of the program, which may have anything in it. */
char stateOf(const std::string& thread) {
  const std::string line = firstLine(thread + "/stat");
  const size_t end = line.rfind(')');
  return end == std::string::npos || end + 2 >= line.size() ? '?' : line[end + 2];
}

}  // namespace

bool waitsElsewhere(const UniqueFd& process, const std::vector<HostDevice>& devices) {
  const std::string pid = fieldOf("/proc/self/fdinfo/" + std::to_string(process.get()), "Pid:");
  const Storage storage(devices);
  const std::string threads = "/proc/" + pid + "/task";
  bool some = false;
  for (const std::string& tid : listFolder(threads)) {
    const std::string thread = threads + "/" + tid;
    const char state = stateOf(thread);
    // It has ended, and waits for the others.
    if (state == 'Z' || state == 'X') continue;
    if (state != 'D' || !isThreadElsewhere(thread, storage)) return false;
    some = true;
  }
  return some;
}

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#include "holders.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>

#include "proc_files.h"

namespace tidemark {
namespace {

constexpr size_t maximumNamed = 4;

bool isNumber(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

/** mountinfo writes space, tab, newline and backslash as three octal digits. */
std::string unescape(const std::string& text) {
  std::string result;
  for (size_t at = 0; at < text.size(); at++) {
    if (text[at] == '\\' && at + 3 < text.size() && std::isdigit(static_cast<unsigned char>(text[at + 1]))) {
      result.push_back(static_cast<char>(std::strtol(text.substr(at + 1, 3).c_str(), nullptr, 8)));
      at += 3;
    } else {
      result.push_back(text[at]);
    }
  }
  return result;
}

std::vector<MountEntry> readMounts(const std::string& file) {
  std::vector<MountEntry> mounts;
  std::ifstream stream(file);
  std::string line;
  while (std::getline(stream, line)) {
    std::istringstream fields(line);
    std::string id, parent, device, root, mountPoint, options, field;
    fields >> id >> parent >> device >> root >> mountPoint >> options;
    while (fields >> field && field != "-") {
    }
    MountEntry entry;
    unsigned major = 0, minor = 0;
    if (std::sscanf(device.c_str(), "%u:%u", &major, &minor) != 2) continue;
    entry.device = makedev(major, minor);
    entry.mountPoint = unescape(mountPoint);
    fields >> entry.type >> entry.source;
    entry.source = unescape(entry.source);
    mounts.push_back(std::move(entry));
  }
  return mounts;
}

/**
 * What is known of a file without asking whoever serves it: among all descriptors of a machine there may be one on a file
 * system whose server hangs, and a question would wait for that one.
 */
bool knownStatus(const std::string& path, struct stat& status) {
  struct statx known;
  if (statx(AT_FDCWD, path.c_str(), AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO, &known) != 0) return false;
  status.st_mode = known.stx_mode;
  status.st_ino = known.stx_ino;
  status.st_dev = makedev(known.stx_dev_major, known.stx_dev_minor);
  status.st_rdev = makedev(known.stx_rdev_major, known.stx_rdev_minor);
  return true;
}

/** Programs with a descriptor that `matches`. */
std::string describeProcesses(int ownFd, const std::function<bool(const struct stat&)>& matches) {
  std::string text;
  size_t named = 0;
  const std::string self = std::to_string(getpid());
  for (const std::string& pid : listFolder("/proc")) {
    if (!isNumber(pid)) continue;
    const std::string folder = "/proc/" + pid + "/fd/";
    for (const std::string& descriptor : listFolder(folder)) {
      if (pid == self && descriptor == std::to_string(ownFd)) continue;
      struct stat status {};
      if (!knownStatus(folder + descriptor, status) || !matches(status)) continue;
      if (++named <= maximumNamed) {
        if (!text.empty()) text += ", ";
        text += "in use by " + firstLine("/proc/" + pid + "/comm") + " (pid " + pid + ")";
      }
      break;
    }
  }
  if (named > maximumNamed) text += ", and " + std::to_string(named - maximumNamed) + " more";
  return text;
}

void append(std::string& text, const std::string& more) {
  if (more.empty()) return;
  if (!text.empty()) text += ", ";
  text += more;
}

}  // namespace

std::vector<MountEntry> listMounts() { return readMounts("/proc/self/mountinfo"); }

std::string describeDeviceHolders(dev_t device, int ownFd) {
  std::string text;
  for (const MountEntry& mount : listMounts()) {
    if (mount.device == device) append(text, "mounted on " + mount.mountPoint);
  }
  const std::string number = std::to_string(major(device)) + ":" + std::to_string(minor(device));
  for (const std::string& holder : listFolder("/sys/dev/block/" + number + "/holders")) {
    append(text, "held by " + holder);
  }
  std::ifstream swaps("/proc/swaps");
  std::string line;
  while (std::getline(swaps, line)) {
    struct stat status {};
    const std::string file = line.substr(0, line.find_first_of(" \t"));
    if (knownStatus(file, status) && S_ISBLK(status.st_mode) && status.st_rdev == device) {
      append(text, "in use as swap");
    }
  }
  append(text, describeProcesses(ownFd, [device](const struct stat& status) {
           return S_ISBLK(status.st_mode) && status.st_rdev == device;
         }));
  if (!text.empty()) return text;
  // A container may have mounted it where this process does not see it.
  for (const std::string& pid : listFolder("/proc")) {
    if (!isNumber(pid)) continue;
    for (const MountEntry& mount : readMounts("/proc/" + pid + "/mountinfo")) {
      if (mount.device == device) return "mounted on " + mount.mountPoint + " in the mount namespace of pid " + pid;
    }
  }
  return text;
}

std::string describeFileHolders(dev_t filesystem, ino_t inode, int ownFd) {
  return describeProcesses(ownFd, [filesystem, inode](const struct stat& status) {
    return status.st_dev == filesystem && status.st_ino == inode && S_ISREG(status.st_mode);
  });
}

std::string loopDeviceOf(dev_t filesystem, ino_t inode) {
  for (const std::string& name : listFolder("/sys/block")) {
    if (name.rfind("loop", 0) != 0) continue;
    const std::string file = firstLine("/sys/block/" + name + "/loop/backing_file");
    struct stat status {};
    // The file may be one that a volume of this process serves, from threads that wait for the one that asks here.
    if (file.empty() || !knownStatus(file, status)) continue;
    if (status.st_dev == filesystem && status.st_ino == inode) return "/dev/" + name;
  }
  return "";
}

}  // namespace tidemark

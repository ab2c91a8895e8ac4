// SPDX-License-Identifier: Apache-2.0
#include "keeper_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace tidemark {
namespace {

constexpr int backlog = 16;
constexpr time_t sendingSeconds = 5;

/** By way of the folder's descriptor: an address has room for 107 bytes, a folder's path may be longer. */
sockaddr_un addressIn(const UniqueFd& folder) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", folder.get(), kKeeperSocket);
  return address;
}

uint32_t spokenVersion() {
  const char* set = std::getenv(kKeeperVersionSet);
  return set == nullptr ? kKeeperVersion : static_cast<uint32_t>(std::strtoul(set, nullptr, 10));
}

}  // namespace

UniqueFd listenAsKeeper(const std::string& directory) {
  const UniqueFd folder(open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!folder || !socket) return {};
  const sockaddr_un address = addressIn(folder);
  // Its name in the folder gets the mode that the socket has now.
  if (fchmod(socket.get(), 0600) != 0) return {};
  unlink(address.sun_path);
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return {};
  if (listen(socket.get(), backlog) != 0) return {};
  return socket;
}

UniqueFd connectToKeeper(const std::string& directory) {
  const UniqueFd folder(open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!folder || !socket) return {};
  const sockaddr_un address = addressIn(folder);
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return {};
  // What another user listens there is no keeper of ours.
  ucred peer{};
  socklen_t length = sizeof peer;
  if (getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || peer.uid != geteuid()) return {};
  limitSending(socket);
  return socket;
}

UniqueFd openProcess(pid_t id, unsigned flags) {
  return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, id, flags)));
}

UniqueFd processAt(const UniqueFd& socket) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return {};
  return openProcess(peer.pid);
}

void limitSending(const UniqueFd& socket) {
  const timeval limit{sendingSeconds, 0};
  setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

void limitReceiving(const UniqueFd& socket, int seconds) {
  const timeval limit{seconds, 0};
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

bool sendMessage(const UniqueFd& socket, const KeeperMessage& message, const std::vector<int>& descriptors) {
  assert(descriptors.size() <= kKeptDescriptorLimit);
  KeeperMessage copy = message;
  copy.version = spokenVersion();
  iovec piece{&copy, sizeof copy};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kKeptDescriptorLimit)] = {};
  if (!descriptors.empty()) {
    const size_t bytes = sizeof(int) * descriptors.size();
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(bytes);
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(bytes);
    std::memcpy(CMSG_DATA(rights), descriptors.data(), bytes);
  }
  ssize_t sent = 0;
  do {
    sent = sendmsg(socket.get(), &header, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(sizeof copy);
}

Received receiveMessage(const UniqueFd& socket, KeeperMessage& message, std::vector<UniqueFd>& descriptors, bool wait) {
  descriptors.clear();
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kKeptDescriptorLimit)] = {};
  iovec piece{&message, sizeof message};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  ssize_t got = 0;
  do {
    got = recvmsg(socket.get(), &header, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
  } while (got < 0 && errno == EINTR);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return Received::kNothing;
  if (got > 0) {
    const cmsghdr* rights = CMSG_FIRSTHDR(&header);
    if (rights != nullptr && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
      const size_t count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      int received[kKeptDescriptorLimit];
      std::memcpy(received, CMSG_DATA(rights), count * sizeof(int));
      for (size_t index = 0; index < count; index++) descriptors.emplace_back(received[index]);
    }
  }
  static_assert(offsetof(KeeperMessage, magic) == 0 && offsetof(KeeperMessage, version) == 4);
  if (got < 8 || message.magic != kKeeperMagic) return Received::kClosed;
  if (message.version != spokenVersion()) return Received::kOtherVersion;
  const bool whole = got == static_cast<ssize_t>(sizeof message) && (header.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) == 0;
  if (!whole) return Received::kClosed;
  // Texts are used as such from here on.
  message.facts.name[sizeof message.facts.name - 1] = 0;
  message.facts.mountPoint[sizeof message.facts.mountPoint - 1] = 0;
  message.facts.loop[sizeof message.facts.loop - 1] = 0;
  return Received::kMessage;
}

}  // namespace tidemark

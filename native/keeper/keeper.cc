// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>

#include "../sys/keeper_message.h"

/**
 * Ends the FUSE connections of an agent that was killed.
 *
 * A thread of the agent may use a file that the agent itself serves. Killed while it waits for an answer that another
 * thread had begun to make, it would wait for ever: the connection ends when its descriptors are closed, they are closed
 * when the last thread is gone, and that is this one. So the agent would stay, with its locks, and nobody be told of its
 * end. This program has the kernel's switches of the connections and turns them when the agent's threads go.
 *
 * Started by sys/keeper.cc with one end of a socket as its standard input. Ends with the agent.
 */
namespace {

using tidemark::KeeperMessage;

/** Sent by the kernel when the thread that started this program goes. What stops a whole group of programs is ignored. */
constexpr int goneSignal = SIGUSR1;

/** One message; `fd` is -1 when it carries none. False: the other end is closed. */
bool receive(KeeperMessage& message, int& fd) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec piece{&message, sizeof message};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  fd = -1;
  const ssize_t got = recvmsg(STDIN_FILENO, &header, MSG_CMSG_CLOEXEC);
  if (got < 0 && errno == EINTR) return receive(message, fd);
  if (got != static_cast<ssize_t>(sizeof message)) return false;
  const cmsghdr* rights = CMSG_FIRSTHDR(&header);
  if (rights != nullptr && rights->cmsg_type == SCM_RIGHTS) std::memcpy(&fd, CMSG_DATA(rights), sizeof fd);
  return true;
}

}  // namespace

int main() {
  for (const int stopping : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE}) signal(stopping, SIG_IGN);
  sigset_t gone;
  sigemptyset(&gone);
  sigaddset(&gone, goneSignal);
  sigprocmask(SIG_SETMASK, &gone, nullptr);
  const int told = signalfd(-1, &gone, SFD_CLOEXEC);
  if (told < 0 || prctl(PR_SET_PDEATHSIG, goneSignal) != 0) return 1;
  prctl(PR_SET_NAME, "tidemark-keeper");
  // Holds up no unmounting.
  if (chdir("/") != 0) return 1;
  // From here on the agent may count on it.
  const char ready = 1;
  if (send(STDIN_FILENO, &ready, sizeof ready, MSG_NOSIGNAL) != sizeof ready) return 1;

  std::map<uint64_t, int> switches;
  pollfd waiting[2] = {{STDIN_FILENO, POLLIN, 0}, {told, POLLIN, 0}};
  for (;;) {
    if (poll(waiting, 2, -1) < 0) {
      if (errno == EINTR) continue;
      break;
    }
    // What was handed over before the end counts.
    if (waiting[0].revents != 0) {
      KeeperMessage message;
      int fd = -1;
      if (!receive(message, fd)) break;
      if (fd >= 0) {
        switches[message.connection] = fd;
      } else if (const auto found = switches.find(message.connection); found != switches.end()) {
        close(found->second);
        switches.erase(found);
      }
    } else if (waiting[1].revents != 0) {
      break;
    }
  }
  for (const auto& [connection, fd] : switches) {
    while (write(fd, "1", 1) < 0 && errno == EINTR) {
    }
  }
  return 0;
}

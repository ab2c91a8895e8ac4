// SPDX-License-Identifier: Apache-2.0
#include "keeper.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "keeper_message.h"

namespace tidemark {
namespace {

constexpr char program[] = "tidemark_keeper";
constexpr int readyMs = 5000;

/** Beside the file that this code is in; empty when that cannot be told. */
std::string programPath() {
  Dl_info info;
  static const char here = 0;
  if (dladdr(&here, &info) == 0 || info.dli_fname == nullptr) return "";
  const std::string file = info.dli_fname;
  const size_t slash = file.find_last_of('/');
  return slash == std::string::npos ? "" : file.substr(0, slash + 1) + program;
}

/** Start it with this end of the socket as its standard input, and nothing else of ours. */
bool spawn(const std::string& path, int socket) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  if (posix_spawn_file_actions_init(&actions) != 0) return false;
  if (posix_spawnattr_init(&attributes) != 0) {
    posix_spawn_file_actions_destroy(&actions);
    return false;
  }
  posix_spawn_file_actions_adddup2(&actions, socket, STDIN_FILENO);
  for (const int output : {STDOUT_FILENO, STDERR_FILENO}) {
    posix_spawn_file_actions_addopen(&actions, output, "/dev/null", O_WRONLY, 0);
  }
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
  char name[] = "tidemark-keeper";
  char* const arguments[] = {name, nullptr};
  char* const environment[] = {nullptr};
  pid_t pid = 0;
  const bool started = posix_spawn(&pid, path.c_str(), &actions, &attributes, arguments, environment) == 0;
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return started;
}

/**
 * One for the process. Lock `mutex_` guards all of it.
 *
 * The kernel tells the keeper when the *thread* that started it goes, so that is a thread that does nothing else and lives
 * as long as the process.
 */
class Keeper {
 public:
  static Keeper& one() {
    // Never destroyed: connections may end while the process does.
    static Keeper* const keeper = new Keeper();
    return *keeper;
  }

  uint64_t watch(int fd) {
    const std::lock_guard lock(mutex_);
    if (!tried_) {
      tried_ = true;
      socket_ = start();
    }
    if (!socket_) return 0;
    const uint64_t connection = ++last_;
    return send(connection, fd) ? connection : 0;
  }

  void forget(uint64_t connection) {
    const std::lock_guard lock(mutex_);
    if (socket_) (void)send(connection, -1);
  }

 private:
  static UniqueFd start() {
    const std::string path = programPath();
    if (path.empty() || access(path.c_str(), X_OK) != 0) return {};
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return {};
    UniqueFd ours(ends[0]);
    const auto theirs = std::make_shared<UniqueFd>(ends[1]);
    const auto started = std::make_shared<std::promise<bool>>();
    std::future<bool> result = started->get_future();
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread([path, theirs, started] {
      pthread_setname_np(pthread_self(), "tm-keeper");
      const bool spawned = spawn(path, theirs->get());
      theirs->reset();
      started->set_value(spawned);
      while (spawned) pause();
    }).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (!result.get()) return {};
    pollfd ready{ours.get(), POLLIN, 0};
    char byte = 0;
    if (poll(&ready, 1, readyMs) != 1 || recv(ours.get(), &byte, sizeof byte, 0) != sizeof byte) return {};
    return ours;
  }

  bool send(uint64_t connection, int fd) {
    KeeperMessage message{connection};
    iovec piece{&message, sizeof message};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    if (fd >= 0) {
      header.msg_control = control;
      header.msg_controllen = sizeof control;
      cmsghdr* rights = CMSG_FIRSTHDR(&header);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    }
    ssize_t sent = 0;
    do {
      sent = sendmsg(socket_.get(), &header, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent == static_cast<ssize_t>(sizeof message);
  }

  std::mutex mutex_;
  bool tried_ = false;
  UniqueFd socket_;
  uint64_t last_ = 0;
};

}  // namespace

uint64_t keeperWatch(const UniqueFd& connectionSwitch) { return Keeper::one().watch(connectionSwitch.get()); }

void keeperForget(uint64_t connection) {
  if (connection != 0) Keeper::one().forget(connection);
}

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#include "keeper_program.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdlib>
#include <vector>

#include "file_size.h"
#include "keeper_message.h"

namespace tidemark {
namespace {

constexpr char program[] = "tidemark_keeper";

/** Beside the file that this code is in; empty when it is not there. */
std::string programPath() {
  Dl_info info;
  static const char here = 0;
  if (dladdr(&here, &info) == 0 || info.dli_fname == nullptr) return "";
  const std::string file = info.dli_fname;
  const size_t slash = file.find_last_of('/');
  const std::string path = slash == std::string::npos ? program : file.substr(0, slash + 1) + program;
  return access(path.c_str(), X_OK) == 0 ? path : "";
}

/** @param input its standard input, or -1. 0: not started */
pid_t start(const std::string& path, std::vector<std::string> words, int input) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  if (posix_spawn_file_actions_init(&actions) != 0) return 0;
  if (posix_spawnattr_init(&attributes) != 0) {
    posix_spawn_file_actions_destroy(&actions);
    return 0;
  }
  if (input >= 0) {
    posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
  } else {
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  }
  for (const int output : {STDOUT_FILENO, STDERR_FILENO}) {
    posix_spawn_file_actions_addopen(&actions, output, "/dev/null", O_WRONLY, 0);
  }
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
  words.insert(words.begin(), "tidemark-keeper");
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const char* const set = std::getenv(kKeeperVersionSet);
  std::string version = std::string(kKeeperVersionSet) + "=" + (set == nullptr ? "" : set);
  char* const environment[] = {set == nullptr ? nullptr : version.data(), nullptr};
  pid_t pid = 0;
  const bool started = posix_spawn(&pid, path.c_str(), &actions, &attributes, arguments.data(), environment) == 0;
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return started ? pid : 0;
}

Error notTold(const std::string& path, int errnoValue) {
  return Error::fromErrno("MOUNT_FAILED", "have the kernel learn the size of " + path, errnoValue);
}

}  // namespace

pid_t startKeeperProgram(const UniqueFd& socket, const std::string& directory) {
  const std::string path = programPath();
  if (path.empty()) return 0;
  const std::vector<std::string> words(directory.empty() ? 0 : 1, directory);
  return start(path, words, socket.get());
}

Result<void> askApart(const std::string& path, uint64_t sizeBytes) {
  const std::string program = programPath();
  const pid_t child = program.empty() ? 0 : start(program, {"--ask", path, std::to_string(sizeBytes)}, -1);
  if (child == 0) {
    const int failed = askForSize(path.c_str(), sizeBytes);
    return failed == 0 ? Result<void>() : notTold(path, failed);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return notTold(path, errno);
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return notTold(path, WIFEXITED(status) ? WEXITSTATUS(status) : EINTR);
}

}  // namespace tidemark

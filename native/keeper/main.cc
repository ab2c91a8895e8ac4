// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "../sys/file_size.h"
#include "../sys/mount_point.h"
#include "keeper.h"

/**
 * tidemark_keeper [DIR]                    the keeper, started by an agent with a socket as its standard input
 * tidemark_keeper --list DIR               its devices, a line each: NAME, DEVICE, SIZE, `rw` or `ro`, `served` or `waits`
 * tidemark_keeper --abort DIR NAME FILE    end the connection of a device, which is served as this file
 * tidemark_keeper --ask PATH SIZE          see askApart()
 *
 * Exit codes of --list and --abort: 0 done, 3 no keeper is there, 4 it has no such device, 5 it is of another version, 6 it
 * does not answer.
 */
namespace {

using namespace tidemark;

constexpr int noKeeper = 3;
constexpr int noDevice = 4;
constexpr int otherVersion = 5;
constexpr int noAnswer = 6;
constexpr int answerSeconds = 5;

/** What the keeper of this folder says; 0: it has said something. */
int ask(const UniqueFd& socket, const KeeperMessage& question, KeeperMessage& answer) {
  if (!socket || !sendMessage(socket, question)) return noKeeper;
  limitReceiving(socket, answerSeconds);
  std::vector<UniqueFd> none;
  const Received received = receiveMessage(socket, answer, none);
  if (received == Received::kOtherVersion) return otherVersion;
  return received == Received::kNothing ? noAnswer : received == Received::kMessage ? 0 : noKeeper;
}

int list(const char* directory) {
  const UniqueFd socket = connectToKeeper(directory);
  KeeperMessage message;
  message.verb = KeeperVerb::kList;
  int failed = ask(socket, message, message);
  std::vector<UniqueFd> none;
  while (failed == 0 && message.verb != KeeperVerb::kEnd) {
    const KeptFacts& facts = message.facts;
    std::printf("%s\t%s\t%llu\t%s\t%s\n", facts.name, facts.loop, static_cast<unsigned long long>(facts.sizeBytes),
                facts.loopReadOnly != 0 ? "ro" : "rw", facts.served != 0 ? "served" : "waits");
    if (receiveMessage(socket, message, none) != Received::kMessage) failed = noAnswer;
  }
  return failed;
}

/** A keeper that cannot be spoken to is done without: the host waits for it, too. */
int abortDevice(const char* directory, const char* name, const char* file) {
  KeeperMessage message;
  message.verb = KeeperVerb::kAbort;
  if (std::strlen(name) >= sizeof message.facts.name) return noDevice;
  std::strcpy(message.facts.name, name);
  const int failed = ask(connectToKeeper(directory), message, message);
  if (failed == 0) return message.verb == KeeperVerb::kEnd ? 0 : noDevice;
  if (failed != otherVersion && failed != noAnswer) return failed;
  return endMounted(file) ? 0 : noDevice;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string verb = count > 1 ? arguments[1] : "";
  if (verb == "--list" && count == 3) return list(arguments[2]);
  if (verb == "--abort" && count == 5) return abortDevice(arguments[2], arguments[3], arguments[4]);
  if (verb == "--ask" && count == 4) return askForSize(arguments[2], std::strtoull(arguments[3], nullptr, 10));
  if (count > 2 || verb.rfind("--", 0) == 0) return 2;
  return Keeper().run(count == 2 ? arguments[1] : nullptr);
}

// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "../sys/file_size.h"
#include "keeper.h"

/**
 * tidemark_keeper [DIR]               the keeper, started by an agent with a socket as its standard input
 * tidemark_keeper --list DIR          its devices, a line each: NAME, DEVICE, SIZE, `rw` or `ro`, `served` or `waits`
 * tidemark_keeper --abort DIR NAME    end the connection of a device
 * tidemark_keeper --ask PATH SIZE     see askApart()
 *
 * Exit codes of --list and --abort: 0 done, 3 no keeper is there, 4 it has no such device.
 */
namespace {

using namespace tidemark;

constexpr int noKeeper = 3;
constexpr int noDevice = 4;

int list(const char* directory) {
  const UniqueFd socket = connectToKeeper(directory);
  KeeperMessage message;
  message.verb = KeeperVerb::kList;
  if (!socket || !sendMessage(socket, message)) return noKeeper;
  std::vector<UniqueFd> none;
  for (;;) {
    if (receiveMessage(socket, message, none) != Received::kMessage) return noKeeper;
    if (message.verb == KeeperVerb::kEnd) return 0;
    const KeptFacts& facts = message.facts;
    std::printf("%s\t%s\t%llu\t%s\t%s\n", facts.name, facts.loop, static_cast<unsigned long long>(facts.sizeBytes),
                facts.loopReadOnly != 0 ? "ro" : "rw", facts.served != 0 ? "served" : "waits");
  }
}

int abortDevice(const char* directory, const char* name) {
  KeeperMessage message;
  message.verb = KeeperVerb::kAbort;
  if (std::strlen(name) >= sizeof message.facts.name) return noDevice;
  std::strcpy(message.facts.name, name);
  const UniqueFd socket = connectToKeeper(directory);
  std::vector<UniqueFd> none;
  if (!socket || !sendMessage(socket, message)) return noKeeper;
  if (receiveMessage(socket, message, none) != Received::kMessage) return noKeeper;
  return message.verb == KeeperVerb::kEnd ? 0 : noDevice;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string verb = count > 1 ? arguments[1] : "";
  if (verb == "--list" && count == 3) return list(arguments[2]);
  if (verb == "--abort" && count == 4) return abortDevice(arguments[2], arguments[3]);
  if (verb == "--ask" && count == 4) return askForSize(arguments[2], std::strtoull(arguments[3], nullptr, 10));
  if (count > 2 || verb.rfind("--", 0) == 0) return 2;
  return Keeper().run(count == 2 ? arguments[1] : nullptr);
}

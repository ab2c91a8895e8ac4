// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <vector>

#include "../sys/keeper_socket.h"
#include "foreign_wait.h"

namespace tidemark {

/**
 * Holds the FUSE connections of one agent, so that hosts do not see that agent end. DESIGN.md tells the whole story.
 *
 * One thread, no locks. It serves nothing and starts nothing, and never uses a file that it holds a connection of.
 */
class Keeper {
 public:
  /**
   * Standard input is a socket to the agent that started it. Ends when there is neither an agent nor anything to hold.
   * @param directory where it listens for the next agent; null: nowhere, so everything ends with the one it has
   */
  int run(const char* directory);

 private:
  struct Held {
    KeptFacts facts;
    /** One at the least to serve on; the switch is the last. */
    std::vector<UniqueFd> descriptors;
  };
  struct Agent {
    UniqueFd socket;
    /** Readable once a thread of it is gone that ends with the agent: before threads that the kernel holds up. */
    UniqueFd thread;
    UniqueFd process;
    /** The kernel tells of its end by a signal, too: what kernels before 6.9 can. */
    bool isStarter = false;
  };

  void turn();
  void admit();
  void serveClient(size_t index);
  bool serveAgent();
  void note(const KeeperMessage& message, std::vector<UniqueFd> descriptors);
  void greet(pid_t thread);
  void agentGone();
  void look();
  std::vector<HostDevice> devices() const;
  void dropEnded();
  void list(const UniqueFd& client);
  bool abort(const char* name);

  UniqueFd starterGone_;
  UniqueFd listener_;
  Agent agent_;
  /** Those who have said nothing yet. */
  std::vector<UniqueFd> clients_;
  std::map<uint64_t, Held> held_;
  /** An agent that was killed, until its last thread has ended. */
  UniqueFd dying_;
  std::chrono::steady_clock::time_point lookAgainAt_;
  std::chrono::steady_clock::time_point dyingUntil_;
};

}  // namespace tidemark

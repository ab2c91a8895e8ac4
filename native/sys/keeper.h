// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "keeper_message.h"
#include "result.h"
#include "unique_fd.h"

/**
 * The agent's side of native/keeper, which holds the agent's FUSE connections: those of devices for the next agent, the
 * others to end them with this one, so that none of its own threads waits for them for ever.
 *
 * There is one for a process. Without keeperOpen() one is started at the first connection that keeps nothing for anybody.
 * Where the program is not beside this code (a test built without it), connections do without. One that dies is
 * replaced, and gets everything again. One that takes nothing any more is killed first: when it went on it would take
 * this agent for dead, and end its devices.
 */
namespace tidemark {

struct KeeperEvent {
  enum class Kind : uint8_t {
    /** The keeper had died; another holds the connections now. */
    kReplaced,
    /** There is no keeper: devices end with this agent. Another attempt is made now and then. */
    kFailed,
  };
  Kind kind;
  std::string message;
};

/** A connection that an earlier agent has left. It is not served until somebody does. */
struct KeptConnection {
  KeptFacts facts;
  /** As many as threads served it. */
  std::vector<UniqueFd> descriptors;
  UniqueFd connectionSwitch;
};

/**
 * Reach the keeper of this folder, or start one, and take back what it holds. Once in a process, before any connection.
 * @param onEvent called on a thread of its own
 * @return the mount points of what it held
 * @error KEEPER_FAILED; KEEPER_OTHER_VERSION, KEEPER_SILENT: it lives, and hosts wait at what it holds
 */
Result<std::vector<std::string>> keeperOpen(const std::string& directory,
                                            std::function<void(const KeeperEvent&)> onEvent);

/** Whether a connection was taken back and not claimed yet. @param mountPoint as kernelPath() gives it */
bool keeperHas(const std::string& mountPoint);
/** Claim it. The keeper goes on holding it, until keeperForget(). */
std::optional<KeptConnection> keeperClaim(const std::string& mountPoint);

/** From here on the keeper holds this connection. @param descriptors the switch is the last; open until keeperForget() */
void keeperHold(const KeptFacts& facts, const std::vector<int>& descriptors);
/** Told before whatever happens next, however this process ends. */
void keeperChange(const KeptFacts& facts);
/** The connection has ended, or is about to. */
void keeperForget(uint64_t connection);

}  // namespace tidemark

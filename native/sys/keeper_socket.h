// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "keeper_message.h"
#include "unique_fd.h"

/** Either end of the keeper's socket: a message is received whole, with its descriptors, or not at all. */
namespace tidemark {

/** Listen in this folder, in place of whoever did before. For the owner alone. Not open when it fails: errno. */
UniqueFd listenAsKeeper(const std::string& directory);
/** Not open when no keeper listens there. */
UniqueFd connectToKeeper(const std::string& directory);

/** A descriptor of a process, or, with PIDFD_THREAD, of a thread. */
UniqueFd openProcess(pid_t id, unsigned flags = 0);
/** Of the process at the other end of a socket that was connected to. */
UniqueFd processAt(const UniqueFd& socket);

/** A peer that takes nothing for so long is taken for gone. */
void limitSending(const UniqueFd& socket);

/** False: the other end is gone. */
bool sendMessage(const UniqueFd& socket, const KeeperMessage& message, const std::vector<int>& descriptors = {});

/** Wait for what a peer says for so long only. */
void limitReceiving(const UniqueFd& socket, int seconds);

enum class Received { kMessage, kNothing, kClosed, kOtherVersion };
/** kNothing only when told not to wait, or for so long only. What is no message of any version counts as closed. */
Received receiveMessage(const UniqueFd& socket, KeeperMessage& message, std::vector<UniqueFd>& descriptors,
                        bool wait = true);

}  // namespace tidemark

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

/**
 * What is said on the keeper's socket: messages of one size, some with descriptors. native/keeper/DESIGN.md has the
 * conversations. A keeper outlives the agent that started it, so a layout never changes under its version, and magic and
 * version come first in every one: who is told something in another is answered kUnknown in one's own.
 */
namespace tidemark {

constexpr uint32_t kKeeperMagic = 0x504b4d54;  // "TMKP"
constexpr uint32_t kKeeperVersion = 1;
/** Set in the environment: speak this version. For tests. */
constexpr char kKeeperVersionSet[] = "TIDEMARK_KEEPER_VERSION";
/** Each serving thread's, and the switch. */
constexpr size_t kKeptDescriptorLimit = 17;
/** In the state directory. */
constexpr char kKeeperSocket[] = "keeper.sock";

enum class KeeperVerb : uint32_t {
  /** From an agent: it serves from here on. Answered by a kHeld for each connection that is held, and kEnd. */
  kHello = 1,
  /** Hold this connection; with its descriptors, the switch last. Again: with these instead. */
  kHold = 2,
  /** What is known of a connection has changed. */
  kChange = 3,
  /** The connection has ended. */
  kForget = 4,
  /** From anybody: answered by a kHeld, without descriptors, for each device, and kEnd. */
  kList = 5,
  /** From anybody: end the connection of the device of this name. Answered by kEnd, or kUnknown when there is none. */
  kAbort = 6,
  kHeld = 16,
  kEnd = 17,
  kUnknown = 18,
};

/** All that an agent must know to go on with a connection that another has begun. */
struct KeptFacts {
  /** Names the connection: the inode number of its file. */
  uint64_t connection = 0;
  /** Of the file, as the kernel knows it. */
  uint64_t sizeBytes = 0;
  /** The file as the loop device has it: filesystem and inode. */
  uint64_t loopFilesystem = 0;
  uint64_t loopInode = 0;
  /** What was agreed on with the kernel: it is never asked again. */
  uint64_t fuseFlags = 0;
  uint32_t fuseMinor = 0;
  /** 1: it is held when the agent goes, for the next one. 0: it ends with the agent. */
  uint8_t kept = 0;
  uint8_t readOnly = 0;
  uint8_t loopReadOnly = 0;
  /** 1: an agent serves it. 0: whoever uses it waits. */
  uint8_t served = 0;
  /** Texts end with a zero byte. NAME, or VOLUME@SNAPSHOT. */
  char name[256] = {};
  char mountPoint[4096] = {};
  /** `/dev/loop3`; empty: none. */
  char loop[32] = {};
};

struct KeeperMessage {
  uint32_t magic = kKeeperMagic;
  uint32_t version = kKeeperVersion;
  KeeperVerb verb{};
  /** kHello: a thread of the agent that lives as long as the agent does. */
  int32_t thread = 0;
  KeptFacts facts;
};

static_assert(std::is_trivially_copyable_v<KeeperMessage>);
static_assert(sizeof(KeptFacts) == 48 + 256 + 4096 + 32);
static_assert(sizeof(KeeperMessage) == 16 + sizeof(KeptFacts));

}  // namespace tidemark

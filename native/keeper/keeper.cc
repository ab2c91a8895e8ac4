// SPDX-License-Identifier: Apache-2.0
#include "keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <csignal>
#include <cstring>

namespace tidemark {
namespace {

/** Sent by the kernel when the thread that started this program goes. */
constexpr int goneSignal = SIGUSR1;
/** While nobody serves: whether connections still live is looked at so often. */
constexpr int tickMs = 250;
constexpr size_t clientLimit = 16;
/** An agent that was killed has ended by then, or waits for a device of its own; or for a disk, which is looked at meanwhile. */
constexpr auto dyingLimit = std::chrono::seconds(30);
constexpr auto dyingStep = std::chrono::seconds(1);
/** pidfd_open(2): of one thread; Linux 6.9. */
constexpr unsigned pidfdThread = O_EXCL;

bool isReadable(const UniqueFd& fd) {
  pollfd one{fd.get(), POLLIN, 0};
  return fd && poll(&one, 1, 0) == 1;
}

/** A connection that has ended says so on each of its descriptors. */
bool hasEnded(const std::vector<UniqueFd>& descriptors) {
  pollfd one{descriptors.front().get(), 0, 0};
  return poll(&one, 1, 0) == 1 && (one.revents & POLLERR) != 0;
}

void endConnection(const UniqueFd& connectionSwitch) {
  while (write(connectionSwitch.get(), "1", 1) < 0 && errno == EINTR) {
  }
}

std::vector<int> numbersOf(const std::vector<UniqueFd>& descriptors) {
  std::vector<int> numbers;
  for (const UniqueFd& fd : descriptors) numbers.push_back(fd.get());
  return numbers;
}

/** What hosts wait for goes last when memory is short, and never waits for memory that they hold. Done as far as it goes. */
void protectMemory() {
  const UniqueFd score(open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (score) (void)!write(score.get(), "-1000", 5);
  (void)mlockall(MCL_CURRENT | MCL_FUTURE);
}

}  // namespace

int Keeper::run(const char* directory) {
  // What stops a whole group of programs is not for this one.
  for (const int stopping : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE}) signal(stopping, SIG_IGN);
  sigset_t gone;
  sigemptyset(&gone);
  sigaddset(&gone, goneSignal);
  sigprocmask(SIG_SETMASK, &gone, nullptr);
  starterGone_ = UniqueFd(signalfd(-1, &gone, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!starterGone_ || prctl(PR_SET_PDEATHSIG, goneSignal) != 0) return 1;
  prctl(PR_SET_NAME, "tidemark-keeper");
  if (directory != nullptr) {
    listener_ = listenAsKeeper(directory);
    if (!listener_) return 1;
  }
  // Holds up no unmounting.
  if (chdir("/") != 0) return 1;
  protectMemory();
  agent_.socket.reset(STDIN_FILENO);
  agent_.isStarter = true;
  limitSending(agent_.socket);
  while (agent_.socket || (listener_ && !held_.empty())) turn();
  // With no name to be found under there is no next agent.
  for (const auto& [connection, held] : held_) endConnection(held.descriptors.back());
  return 0;
}

void Keeper::turn() {
  std::vector<pollfd> waiting;
  for (const UniqueFd* fd : {&starterGone_, &listener_, &agent_.socket, &agent_.thread}) {
    waiting.push_back({fd->get(), POLLIN, 0});
  }
  for (const UniqueFd& client : clients_) waiting.push_back({client.get(), POLLIN, 0});
  if (poll(waiting.data(), waiting.size(), agent_.socket ? -1 : tickMs) < 0) return;
  // From the last client to the first: those that are done are taken out.
  for (size_t index = clients_.size(); index-- > 0;) {
    if (waiting[index + 4].revents != 0) serveClient(index);
  }
  if (waiting[1].revents != 0) admit();
  bool gone = waiting[3].revents != 0 || (waiting[2].revents != 0 && !serveAgent());
  if (waiting[0].revents != 0) {
    signalfd_siginfo told;
    (void)!read(starterGone_.get(), &told, sizeof told);
    gone = gone || agent_.isStarter;
  }
  if (gone && agent_.socket) agentGone();
  if (!agent_.socket) look();
}

void Keeper::admit() {
  UniqueFd client(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!client || clients_.size() >= clientLimit) return;
  limitSending(client);
  clients_.push_back(std::move(client));
}

/** One message of who is no agent, or not yet. */
void Keeper::serveClient(size_t index) {
  KeeperMessage message;
  std::vector<UniqueFd> descriptors;
  const Received received = receiveMessage(clients_[index], message, descriptors, false);
  if (received == Received::kNothing) return;
  UniqueFd client = std::move(clients_[index]);
  clients_.erase(clients_.begin() + static_cast<ptrdiff_t>(index));
  if (received == Received::kClosed) return;
  if (received == Received::kOtherVersion) {
    message = KeeperMessage{};
    message.verb = KeeperVerb::kUnknown;
    sendMessage(client, message);
    return;
  }
  if (message.verb == KeeperVerb::kHello) {
    // The one before has ended, although nobody has said so yet: two have never the same state directory.
    if (agent_.socket) agentGone();
    agent_ = Agent{std::move(client), {}, {}, false};
    greet(message.thread);
  } else if (message.verb == KeeperVerb::kList) {
    list(client);
  } else if (message.verb == KeeperVerb::kAbort) {
    message.verb = abort(message.facts.name) ? KeeperVerb::kEnd : KeeperVerb::kUnknown;
    sendMessage(client, message);
  }
}

/** False: the agent is gone. */
bool Keeper::serveAgent() {
  KeeperMessage message;
  std::vector<UniqueFd> descriptors;
  const Received received = receiveMessage(agent_.socket, message, descriptors, false);
  if (received == Received::kMessage) note(message, std::move(descriptors));
  return received == Received::kMessage || received == Received::kNothing;
}

void Keeper::note(const KeeperMessage& message, std::vector<UniqueFd> descriptors) {
  const uint64_t connection = message.facts.connection;
  switch (message.verb) {
    case KeeperVerb::kHello:
      greet(message.thread);
      break;
    case KeeperVerb::kHold:
      // At the least one to serve on, and the switch.
      if (descriptors.size() >= 2) held_[connection] = Held{message.facts, std::move(descriptors)};
      break;
    case KeeperVerb::kChange:
      if (const auto found = held_.find(connection); found != held_.end()) found->second.facts = message.facts;
      break;
    case KeeperVerb::kForget:
      held_.erase(connection);
      break;
    default:
      break;
  }
}

void Keeper::greet(pid_t thread) {
  agent_.thread = openProcess(thread, pidfdThread);
  agent_.process = processAt(agent_.socket);
  dying_.reset();
  dropEnded();
  for (const auto& [connection, held] : held_) {
    KeeperMessage message;
    message.verb = KeeperVerb::kHeld;
    message.facts = held.facts;
    // One that takes nothing is gone, and noticed so.
    if (!sendMessage(agent_.socket, message, numbersOf(held.descriptors))) return;
  }
  KeeperMessage end;
  end.verb = KeeperVerb::kEnd;
  sendMessage(agent_.socket, end);
}

/** (1) What it said before its end counts, (2) what is not to be kept ends, (3) its own end is watched. */
void Keeper::agentGone() {
  while (isReadable(agent_.socket) && serveAgent()) {
  }
  for (auto held = held_.begin(); held != held_.end();) {
    held->second.facts.served = 0;
    if (held->second.facts.kept != 0) {
      ++held;
      continue;
    }
    endConnection(held->second.descriptors.back());
    held = held_.erase(held);
  }
  dying_ = std::move(agent_.process);
  lookAgainAt_ = std::chrono::steady_clock::now() + dyingStep;
  dyingUntil_ = std::chrono::steady_clock::now() + dyingLimit;
  agent_ = Agent{};
}

/** While nobody serves. */
void Keeper::look() {
  dropEnded();
  if (!dying_) return;
  const auto now = std::chrono::steady_clock::now();
  if (isReadable(dying_)) {
    dying_.reset();
  } else if (now < lookAgainAt_) {
    return;
  } else if (lookAgainAt_ = now + dyingStep; waitsElsewhere(dying_, devices())) {
    // Counted anew from when that is over: in between it cannot be told.
    dyingUntil_ = now + dyingLimit;
  } else if (now >= dyingUntil_) {
    // It would wait for ever, and so would the next agent: for its locks.
    for (const auto& [connection, held] : held_) endConnection(held.descriptors.back());
    held_.clear();
    dying_.reset();
  }
}

std::vector<HostDevice> Keeper::devices() const {
  std::vector<HostDevice> devices;
  for (const auto& [connection, held] : held_) devices.push_back({held.facts.loop, held.facts.mountPoint});
  return devices;
}

void Keeper::dropEnded() {
  std::erase_if(held_, [](const auto& entry) { return hasEnded(entry.second.descriptors); });
}

void Keeper::list(const UniqueFd& client) {
  KeeperMessage message;
  message.verb = KeeperVerb::kHeld;
  for (const auto& [connection, held] : held_) {
    if (held.facts.loop[0] == 0 || hasEnded(held.descriptors)) continue;
    message.facts = held.facts;
    if (!sendMessage(client, message)) return;
  }
  message = KeeperMessage{};
  message.verb = KeeperVerb::kEnd;
  sendMessage(client, message);
}

bool Keeper::abort(const char* name) {
  return std::erase_if(held_, [name](const auto& entry) {
           const Held& held = entry.second;
           if (held.facts.loop[0] == 0 || std::strcmp(held.facts.name, name) != 0) return false;
           endConnection(held.descriptors.back());
           return true;
         }) > 0;
}

}  // namespace tidemark

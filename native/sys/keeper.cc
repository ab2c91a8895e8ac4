// SPDX-License-Identifier: Apache-2.0
#include "keeper.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "keeper_program.h"
#include "keeper_socket.h"
#include "signals_blocked.h"

namespace tidemark {
namespace {

constexpr int readyMs = 5000;
/** Of one that an earlier agent has left: only it has the devices of the hosts that wait. */
constexpr int patienceMs = 30'000;
/** One whose agent has just ended may still be there, and have nothing to hold. */
constexpr auto endingPatience = std::chrono::seconds(2);
constexpr auto endingPoll = std::chrono::milliseconds(50);
/** SIGKILL ends a process that stands still, too. */
constexpr int killedMs = 5000;
/** Between two attempts to have a keeper again. */
constexpr auto pause = std::chrono::seconds(1);

/**
 * One for the process. A thread of its own talks first with a keeper, then waits for its end. It lives as long as the
 * process: the keeper is told when it goes, which is before threads that the kernel holds up.
 *
 * Lock `mutex_` guards what is below it; messages are sent while it is held, so that they arrive in order.
 */
class KeeperLink {
 public:
  static KeeperLink& one() {
    // Never destroyed: connections may end while the process does.
    static KeeperLink* const link = new KeeperLink();
    return *link;
  }

  Result<std::vector<std::string>> open(const std::string& directory,
                                        std::function<void(const KeeperEvent&)> onEvent) {
    const std::lock_guard lock(starting_);
    if (begun_) return Error{"KEEPER_FAILED", EBUSY, "this process has a keeper already"};
    directory_ = directory;
    onEvent_ = std::move(onEvent);
    if (const Greeted greeted = begin(); greeted != Greeted::kDone) return notOpened(greeted);
    const std::lock_guard guard(mutex_);
    std::vector<std::string> mountPoints;
    for (const auto& [mountPoint, connection] : unclaimed_) mountPoints.push_back(mountPoint);
    return mountPoints;
  }

  bool has(const std::string& mountPoint) {
    const std::lock_guard lock(mutex_);
    return unclaimed_.count(mountPoint) != 0;
  }

  std::optional<KeptConnection> claim(const std::string& mountPoint) {
    const std::lock_guard lock(mutex_);
    const auto found = unclaimed_.find(mountPoint);
    if (found == unclaimed_.end()) return std::nullopt;
    std::optional<KeptConnection> claimed(std::move(found->second));
    unclaimed_.erase(found);
    return claimed;
  }

  void hold(const KeptFacts& facts, const std::vector<int>& descriptors) {
    {
      const std::lock_guard lock(starting_);
      if (!begun_) (void)begin();
    }
    const std::lock_guard lock(mutex_);
    held_[facts.connection] = Held{facts, descriptors};
    send(KeeperVerb::kHold, facts, descriptors);
  }

  void change(const KeptFacts& facts) {
    const std::lock_guard lock(mutex_);
    const auto found = held_.find(facts.connection);
    if (found == held_.end()) return;
    found->second.facts = facts;
    send(KeeperVerb::kChange, facts, {});
  }

  void forget(uint64_t connection) {
    const std::lock_guard lock(mutex_);
    if (held_.erase(connection) == 0) return;
    KeptFacts facts;
    facts.connection = connection;
    send(KeeperVerb::kForget, facts, {});
  }

 private:
  struct Held {
    KeptFacts facts;
    std::vector<int> descriptors;
  };
  enum class Greeted : uint8_t { kDone, kGone, kOtherVersion, kSilent };

  Error notOpened(Greeted greeted) const {
    if (greeted == Greeted::kOtherVersion) {
      return Error{"KEEPER_OTHER_VERSION", 0, "an agent of another version has begun the keeper of " + directory_};
    }
    if (greeted == Greeted::kSilent) {
      return Error{"KEEPER_SILENT", 0, "the keeper of " + directory_ + " lives and does not answer"};
    }
    return Error{"KEEPER_FAILED", 0, "no keeper could be started for " + directory_};
  }

  /** With starting_ held. */
  Greeted begin() {
    begun_ = true;
    const auto ready = std::make_shared<std::promise<Greeted>>();
    std::future<Greeted> result = ready->get_future();
    {
      const SignalsBlocked blocked;
      std::thread([this, ready] { run(*ready); }).detach();
    }
    return result.get();
  }

  void run(std::promise<Greeted>& ready) {
    pthread_setname_np(pthread_self(), "tm-keeper");
    const Greeted greeted = establish(patienceMs);
    bool reached = greeted == Greeted::kDone;
    ready.set_value(greeted);
    // One that lives and cannot be had: this agent does without, and does not take what others wait for.
    if (!reached && greeted != Greeted::kGone) return;
    for (bool told = false;;) {
      if (reached) {
        waitForEnd();
        endKeeper();
        told = false;
      }
      // A keeper that dies again and again is not started again and again at once.
      reached = establish(readyMs) == Greeted::kDone;
      if (reached) {
        tell(KeeperEvent::Kind::kReplaced, "the keeper had ended, or stood still; another holds the devices now");
        continue;
      }
      if (!told) tell(KeeperEvent::Kind::kFailed, "no keeper can be started; devices end with this agent");
      told = true;
      std::this_thread::sleep_for(pause);
    }
  }

  void tell(KeeperEvent::Kind kind, std::string message) const {
    if (onEvent_) onEvent_(KeeperEvent{kind, std::move(message)});
  }

  /** Until the keeper is gone: after its greeting it says nothing. */
  void waitForEnd() {
    KeeperMessage message;
    std::vector<UniqueFd> none;
    const auto began = std::chrono::steady_clock::now();
    while (receiveMessage(socket_, message, none) == Received::kMessage) {
    }
    if (std::chrono::steady_clock::now() - began < pause) std::this_thread::sleep_for(pause);
  }

  /**
   * (1) Find one or start one, (2) take what it holds, (3) give it what is held here. None is started beside one that
   * lives: hosts wait at what that holds, and only it can give that back.
   */
  Greeted establish(int patience) {
    std::vector<KeptConnection> found;
    UniqueFd socket;
    Greeted greeted = Greeted::kGone;
    const auto until = std::chrono::steady_clock::now() + endingPatience;
    while (!directory_.empty() && (socket = connectToKeeper(directory_))) {
      found.clear();
      greeted = greet(socket, found, patience);
      if (greeted == Greeted::kDone || greeted == Greeted::kSilent || std::chrono::steady_clock::now() > until) break;
      std::this_thread::sleep_for(endingPoll);
    }
    if (greeted == Greeted::kDone) {
      process_ = processAt(socket);
    } else {
      if (socket) return greeted;
      socket = startOne();
      greeted = socket ? greet(socket, found, readyMs) : Greeted::kGone;
      if (greeted != Greeted::kDone) return Greeted::kGone;
    }
    const std::lock_guard lock(mutex_);
    socket_ = std::move(socket);
    for (KeptConnection& connection : found) {
      // What is known here was given by this process.
      if (held_.count(connection.facts.connection) != 0) continue;
      std::vector<int> descriptors;
      for (const UniqueFd& fd : connection.descriptors) descriptors.push_back(fd.get());
      descriptors.push_back(connection.connectionSwitch.get());
      held_[connection.facts.connection] = Held{connection.facts, std::move(descriptors)};
      unclaimed_.insert_or_assign(connection.facts.mountPoint, std::move(connection));
    }
    for (const auto& [connection, held] : held_) send(KeeperVerb::kHold, held.facts, held.descriptors);
    return greeted;
  }

  /** One that was given up may live: it would take this agent for dead when it goes on, and end what it holds. */
  void endKeeper() {
    if (!process_) return;
    syscall(SYS_pidfd_send_signal, process_.get(), SIGKILL, nullptr, 0);
    pollfd gone{process_.get(), POLLIN, 0};
    poll(&gone, 1, killedMs);
    // No zombie stays of one that this process has started.
    siginfo_t status;
    waitid(P_PIDFD, static_cast<id_t>(process_.get()), &status, WEXITED | WNOHANG);
    process_.reset();
  }

  UniqueFd startOne() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return {};
    UniqueFd ours(ends[0]);
    const UniqueFd theirs(ends[1]);
    limitSending(ours);
    const pid_t pid = startKeeperProgram(theirs, directory_);
    if (pid == 0) return {};
    process_ = openProcess(pid);
    return ours;
  }

  static Greeted greet(const UniqueFd& socket, std::vector<KeptConnection>& found, int patience) {
    KeeperMessage message;
    message.verb = KeeperVerb::kHello;
    message.thread = gettid();
    if (!sendMessage(socket, message)) return Greeted::kGone;
    for (;;) {
      pollfd answer{socket.get(), POLLIN, 0};
      KeptConnection connection;
      if (poll(&answer, 1, patience) != 1) return Greeted::kSilent;
      const Received received = receiveMessage(socket, message, connection.descriptors);
      if (received == Received::kOtherVersion) return Greeted::kOtherVersion;
      if (received != Received::kMessage) return Greeted::kGone;
      if (message.verb == KeeperVerb::kEnd) return Greeted::kDone;
      if (message.verb != KeeperVerb::kHeld || connection.descriptors.size() < 2) continue;
      connection.facts = message.facts;
      connection.connectionSwitch = std::move(connection.descriptors.back());
      connection.descriptors.pop_back();
      found.push_back(std::move(connection));
    }
  }

  /** With mutex_ held. One that takes nothing is given up: the thread that waits for its end sees to another. */
  void send(KeeperVerb verb, const KeptFacts& facts, const std::vector<int>& descriptors) {
    if (!socket_) return;
    KeeperMessage message;
    message.verb = verb;
    message.facts = facts;
    if (!sendMessage(socket_, message, descriptors)) shutdown(socket_.get(), SHUT_RDWR);
  }

  /** Guards begun_, and what is set before the thread begins. Taken before mutex_. */
  std::mutex starting_;
  bool begun_ = false;
  std::string directory_;
  std::function<void(const KeeperEvent&)> onEvent_;

  std::mutex mutex_;
  /** Replaced by the thread alone, which reads from it without the lock. */
  UniqueFd socket_;
  /** A descriptor of the keeper's process; the thread's own. */
  UniqueFd process_;
  std::map<uint64_t, Held> held_;
  std::map<std::string, KeptConnection> unclaimed_;
};

}  // namespace

Result<std::vector<std::string>> keeperOpen(const std::string& directory,
                                            std::function<void(const KeeperEvent&)> onEvent) {
  return KeeperLink::one().open(directory, std::move(onEvent));
}

bool keeperHas(const std::string& mountPoint) { return KeeperLink::one().has(mountPoint); }

std::optional<KeptConnection> keeperClaim(const std::string& mountPoint) {
  return KeeperLink::one().claim(mountPoint);
}

void keeperHold(const KeptFacts& facts, const std::vector<int>& descriptors) {
  KeeperLink::one().hold(facts, descriptors);
}

void keeperChange(const KeptFacts& facts) { KeeperLink::one().change(facts); }

void keeperForget(uint64_t connection) { KeeperLink::one().forget(connection); }

}  // namespace tidemark

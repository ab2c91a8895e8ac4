// SPDX-License-Identifier: Apache-2.0
//
// The floor of the front end: a loop device over a FUSE file over a plain file, with nothing in between. What a volume
// does not reach of this is the price of journal, table and locks.
//
// Usage: pass-through MOUNTPOINT FILE page-cache|direct     prints the device, serves until SIGTERM
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "../../native/frontend/fuse_session.h"
#include "../../native/sys/loop_device.h"

using namespace tidemark;

namespace {

/** As many as a volume has unless it is configured otherwise. */
constexpr uint32_t threads = 2;

/** Whole transfers or an errno. */
template <typename Call>
int transfer(Call call, uint64_t offset, size_t length) {
  for (size_t done = 0; done < length;) {
    const ssize_t moved = call(done, length - done, static_cast<off_t>(offset + done));
    if (moved < 0) return errno;
    if (moved == 0) return EIO;
    done += static_cast<size_t>(moved);
  }
  return 0;
}

class PassThrough final : public RequestTarget {
 public:
  explicit PassThrough(int file) : file_(file) {}

  void read(const Reply& reply, uint64_t offset, uint32_t length, uint8_t* buffer) override {
    const int failed = transfer(
        [&](size_t at, size_t left, off_t place) { return pread(file_, buffer + at, left, place); }, offset, length);
    if (failed != 0) {
      reply.finish(failed);
    } else {
      reply.data(buffer, length);
    }
  }

  void write(const Reply& reply, uint64_t offset, uint8_t* payload, uint32_t length) override {
    const int failed = transfer(
        [&](size_t at, size_t left, off_t place) { return pwrite(file_, payload + at, left, place); }, offset, length);
    if (failed != 0) {
      reply.finish(failed);
    } else {
      reply.written(length);
    }
  }

  void discard(const Reply& reply, uint64_t offset, uint64_t length, bool) override {
    const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const int failed = fallocate(file_, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
    reply.finish(failed == 0 ? 0 : errno);
  }

  void flush(const Reply& reply) override { reply.finish(fdatasync(file_) == 0 ? 0 : errno); }

  void seek(const Reply& reply, uint64_t offset, int whence) override {
    const off_t found = lseek(file_, static_cast<off_t>(offset), whence);
    if (found < 0) {
      reply.finish(errno);
    } else {
      reply.found(static_cast<uint64_t>(found));
    }
  }

  void lost(const std::string& message) override { std::fprintf(stderr, "%s\n", message.c_str()); }

 private:
  const int file_;
};

int fail(const std::string& why) {
  std::fprintf(stderr, "pass-through: %s\n", why.c_str());
  return 1;
}

}  // namespace

int main(int count, char** parameters) {
  if (count != 4) return fail("usage: pass-through MOUNTPOINT FILE page-cache|direct");
  const std::string mountPoint = parameters[1];
  const bool direct = std::strcmp(parameters[3], "direct") == 0;

  // Blocked before the front end has threads: only the wait below takes them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  const UniqueFd file(open(parameters[2], O_RDWR | O_CLOEXEC | (direct ? O_DIRECT : 0)));
  if (!file) return fail(std::string("open ") + parameters[2] + ": " + std::strerror(errno));
  struct stat status;
  if (fstat(file.get(), &status) != 0) return fail(std::strerror(errno));
  PassThrough target(file.get());
  FuseSessionOptions options;
  options.name = "floor";
  options.mountPoint = mountPoint;
  options.sizeBytes = static_cast<uint64_t>(status.st_size);
  options.threads = threads;
  auto session = FuseSession::start(std::move(options), target);
  if (!session) return fail(session.error().message);
  Result<LoopDevice> loop = [&]() -> Result<LoopDevice> {
    const UniqueFd mounted(open(mountPoint.c_str(), O_RDWR | O_CLOEXEC));
    if (!mounted) return Error::fromErrno("MOUNT_FAILED", "open " + mountPoint, errno);
    return LoopDevice::bind(mounted.get(), false, direct ? 4096 : 512);
  }();
  if (!loop) {
    (*session)->abort();
    return fail(loop.error().message);
  }
  std::printf("%s\n", loop->path().c_str());
  std::fflush(stdout);

  int signal = 0;
  sigwait(&signals, &signal);
  Result<void> released = loop->release();
  if (!released) {
    (*session)->abort();
    return fail(released.error().message);
  }
  Result<void> stopped = (*session)->stop();
  return stopped ? 0 : fail(stopped.error().message);
}

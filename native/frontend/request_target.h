// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace tidemark {

class FuseSession;

/**
 * The right, and the duty, to answer one request exactly once, from any thread.
 *
 * Plain data while the request is on its front-end thread. Whoever keeps it longer also keeps keep(), so that the
 * descriptor it is answered on cannot be closed, or become another file, meanwhile.
 */
struct Reply {
  FuseSession* session = nullptr;
  int fd = -1;
  uint64_t unique = 0;
  /**
   * Set when the request was stretched to whole blocks, because the kernel asked for parts of some: so many bytes,
   * beginning so far into the range. 0: all of it.
   */
  uint32_t askedBytes = 0;
  uint32_t askedFrom = 0;

  std::shared_ptr<FuseSession> keep() const;
  /** Done, or failed with a positive errno. False: the kernel no longer wanted the answer. */
  bool finish(int errnoValue) const;
  /** A WRITE of `length` bytes, or of what was asked, is done. */
  bool written(uint32_t length) const;
  /**
   * The data of a READ, of which what was asked is handed on. The 16 bytes before `bytes` must be writable: the header goes there, so that header and data
   * are handed over by one call without a copy.
   */
  bool data(uint8_t* bytes, uint32_t length) const;
  /** A seek ended at this offset. */
  bool found(uint64_t offset) const;
};

/** One of many writes; the payload as in RequestTarget::write(). */
struct BatchedWrite {
  uint64_t offset;
  uint8_t* payload;
  uint32_t length;
};

/**
 * What the front end asks for. Called on the front end's threads, several at once; ranges are inside the volume, and whole
 * sectors.
 */
class RequestTarget {
 public:
  virtual ~RequestTarget() = default;

  /** `buffer`: page-aligned, kStretchedBytes, with 16 writable bytes before it; the target's until it returns. */
  virtual void read(const Reply& reply, uint64_t offset, uint32_t length, uint8_t* buffer) = 0;
  /**
   * `payload` is page-aligned and the target's until the call returns. Of a stretched request only what was asked is
   * there: around it the target keeps what the volume holds.
   */
  virtual void write(const Reply& reply, uint64_t offset, uint8_t* payload, uint32_t length) = 0;
  /**
   * Not empty, and in any order. Answered when all have ended, with an errno of one that failed; each is tried. Who asked then
   * does each again by itself, so counters count it twice. Asked only where
   * FuseSessionOptions::takesBatches is set.
   */
  virtual void writeMany(const Reply& reply, std::span<const BatchedWrite> writes) {
    (void)writes;
    reply.finish(EOPNOTSUPP);
  }
  /** The range shall read as zeros; `keepAllocated` when its space must not be given back. */
  virtual void discard(const Reply& reply, uint64_t offset, uint64_t length, bool keepAllocated) = 0;
  /** Everything answered before is durable when this is answered. Must not hold up the thread. */
  virtual void flush(const Reply& reply) = 0;
  /** SEEK_DATA or SEEK_HOLE. */
  virtual void seek(const Reply& reply, uint64_t offset, int whence) = 0;
  /** The kernel ended the connection although nobody here asked for it. Called once. */
  virtual void lost(const std::string& message) = 0;
};

}  // namespace tidemark

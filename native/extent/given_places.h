// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

/**
 * Places of a pool that were given to blocks of a thin volume and are not published yet: one a block, the last given.
 *
 * Some of them are *reserved*: kept for a write that covers the whole block. Such a write needs nothing copied, so its
 * data go there at once, and the place becomes the block's when they are there.
 *
 * What is said about a block changes only while its range is locked, or while nobody is inside the volume's gate and no
 * grant is carried out.
 *
 * Lock `mutex_` guards everything.
 */
namespace tidemark {

struct GivenPlace {
  uint64_t block = 0;
  /** In blocks of the backing. */
  uint64_t location = 0;
};

class GivenPlaces {
 public:
  void give(uint64_t block, uint64_t location) {
    const std::lock_guard lock(mutex_);
    Place& place = places_[block];
    if (place.location != location) place = Place{location, false, false};
  }

  /** Of a place that was given. */
  void setReserved(uint64_t block, bool reserved) {
    const std::lock_guard lock(mutex_);
    const auto found = places_.find(block);
    if (found != places_.end()) found->second.reserved = reserved;
  }

  /** Something is about to be written there: should it stay unpublished, it does not read as zeros any more. */
  void touch(uint64_t block) {
    const std::lock_guard lock(mutex_);
    const auto found = places_.find(block);
    if (found != places_.end()) found->second.touched = true;
  }

  bool isTouched(uint64_t block) const {
    const std::lock_guard lock(mutex_);
    const auto found = places_.find(block);
    return found != places_.end() && found->second.touched;
  }

  /** The place reserved for the block. */
  std::optional<uint64_t> reserved(uint64_t block) const {
    const std::lock_guard lock(mutex_);
    const auto found = places_.find(block);
    return found != places_.end() && found->second.reserved ? std::optional(found->second.location) : std::nullopt;
  }

  /** The log says that the block lies there. */
  void published(uint64_t block) {
    const std::lock_guard lock(mutex_);
    places_.erase(block);
  }

  /** All of them; none are given from here on. */
  std::vector<GivenPlace> takeAll() {
    const std::lock_guard lock(mutex_);
    std::vector<GivenPlace> all;
    all.reserve(places_.size());
    for (const auto& [block, place] : places_) all.push_back(GivenPlace{block, place.location});
    places_.clear();
    return all;
  }

 private:
  struct Place {
    uint64_t location = UINT64_MAX;
    bool reserved = false;
    bool touched = false;
  };

  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, Place> places_;
};

}  // namespace tidemark

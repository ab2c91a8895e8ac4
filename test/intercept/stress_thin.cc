// SPDX-License-Identifier: Apache-2.0
//
// A thin volume at work. Each host owns every third region of the volume and knows what it wrote there. Regions do not end
// on blocks: hosts meet in them. Meanwhile snapshots are taken, the journal comes and goes, and the volume grows. Every
// snapshot must hold, of each sector, what its owner had written when it was taken; the log must never say anything
// about a place that was not given out, and at a freeze every place is either published or given back.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "../../native/sys/crc32c.h"
#include "../../native/volume/volume.h"
#include "stress.h"

namespace tidemark::stress {
namespace {

constexpr uint32_t blockBytes = 4 << 10;
constexpr uint64_t sectorBytes = 512;
constexpr uint64_t sectorsEach = blockBytes / sectorBytes;
/** The volume: three leaves, the last of them one block, and that a part of one. */
constexpr uint64_t volumeBytes = 2 * kLeafBlocks * blockBytes + 2048;
/** Hosts work here, around the place where two leaves meet, and at the end. */
constexpr uint64_t zoneBytes = 1 << 20;
constexpr std::array<uint64_t, 3> zones = {0, kLeafBlocks * blockBytes - zoneBytes / 2, volumeBytes - zoneBytes};
constexpr uint64_t regionBytes = 40 * sectorBytes + 5 * blockBytes;
constexpr int hostThreads = 3;
constexpr int requestsEach = 1200;
constexpr int rounds = 2;
constexpr int freezesEach = 8;
constexpr uint64_t logOffset = 0, logPlaces = 1 << 15;
constexpr uint64_t firstPlace = logPlaces * kLogPlaceBytes / blockBytes;
constexpr uint64_t placeCount = 16 << 10;
constexpr uint64_t unknownPlace = UINT64_MAX;

/** What the log said: layers on top of each other, 1 at the bottom. Used by one thread. */
class State {
 public:
  explicit State(Pool& pool) : pool_(pool) {
    layers_.emplace_back();
    layers_.emplace_back();
    for (uint64_t place = placeCount; place > 0; place--) free_.push_back(firstPlace + place - 1);
  }

  uint64_t own(uint32_t layer, uint64_t block) const {
    const auto found = layers_[layer].entries.find(block);
    return found == layers_[layer].entries.end() ? unknownPlace : found->second;
  }
  uint64_t find(uint32_t layer, uint64_t block) const {
    for (; layer > 0; layer--) {
      const uint64_t place = own(layer, block);
      if (place != unknownPlace) return place;
      if (layers_[layer].holes.contains(block)) break;
    }
    return unknownPlace;
  }
  /** The place the block was given and has not used, or another. */
  uint64_t give(uint64_t block, bool& again) {
    const auto given = given_.find(block);
    again = given != given_.end();
    if (again) return given->second;
    require(!free_.empty(), "there are places enough");
    const uint64_t place = free_.back();
    free_.pop_back();
    given_[block] = place;
    return place;
  }

  /** Apply what was appended. */
  void take() {
    pool_.log().take(bytes_);
    for (size_t at = 0; at < bytes_.size(); at += sizeof(LogRecord)) {
      LogRecord record;
      std::memcpy(&record, bytes_.data() + at, sizeof record);
      next_ = record.sequence + 1;
      const auto type = static_cast<LogRecordType>(record.subjectAndType >> 56);
      const uint64_t block = record.subjectAndType & ((uint64_t{1} << 56) - 1);
      if (type == LogRecordType::kMap) map(record.layer, block, record.value);
      if (type == LogRecordType::kHole) hole(record.layer, block, record.value);
      if (type != LogRecordType::kOperation) continue;
      layers_.emplace_back();
      at += sizeof record;
      next_++;
    }
    must(pool_.log().trim(next_), "trim the log");
  }

  /** After a freeze and take(): these, and no others, were given and not used. */
  void checkDropped(const std::vector<GivenPlace>& dropped) {
    for (const GivenPlace& place : dropped) {
      const auto given = given_.find(place.block);
      // Given, used and freed since is possible; then it is not the one that is given now.
      if (given == given_.end() || given->second != place.location) continue;
      free_.push_back(place.location);
      given_.erase(given);
    }
    require(given_.empty(), "every place that was given is published or dropped");
  }

  void dropAll() {
    for (const auto& [block, place] : given_) free_.push_back(place);
    given_.clear();
  }

 private:
  struct Layer {
    std::map<uint64_t, uint64_t> entries;
    std::set<uint64_t> holes;
  };

  void map(uint32_t layer, uint64_t block, uint64_t place) {
    require(layer + 1 == layers_.size(), "only the top layer is published");
    require(own(layer, block) == unknownPlace, "a block is mapped once");
    const auto given = given_.find(block);
    require(given != given_.end() && given->second == place, "what is published was given to this block");
    given_.erase(given);
    layers_[layer].entries[block] = place;
  }

  void hole(uint32_t layer, uint64_t block, uint64_t count) {
    require(layer + 1 == layers_.size(), "only the top layer is published");
    auto& entries = layers_[layer].entries;
    for (auto entry = entries.lower_bound(block); entry != entries.end() && entry->first < block + count;) {
      free_.push_back(entry->second);
      entry = entries.erase(entry);
    }
    // A mapped block comes before a hole: both may be there.
    for (uint64_t index = 0; index < count; index++) layers_[layer].holes.insert(block + index);
  }

  Pool& pool_;
  std::vector<Layer> layers_;
  std::vector<uint64_t> free_;
  std::map<uint64_t, uint64_t> given_;
  std::vector<uint8_t> bytes_;
  /** Sequence of the record behind those applied. */
  uint64_t next_ = 0;
};

/** Stands for the thread that runs JavaScript: answers faults, begins and ends freezes, and is alone in doing so. */
class Answering {
 public:
  Answering(Pool& pool) : state_(pool) {}

  std::function<void()> listener() {
    return [this] {
      const std::lock_guard lock(mutex_);
      wanted_ = true;
      wake_.notify_one();
    };
  }
  void begin(Volume& volume) {
    thread_ = std::thread([this, &volume] { run(volume); });
  }
  void end() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = wanted_ = true;
    }
    wake_.notify_one();
    thread_.join();
    stop_ = wanted_ = false;
  }
  uint32_t layer() const { return layer_; }
  /** The volume is closed: what was given is used no more. */
  void dropAll() { state_.dropAll(); }

  /** From another thread. The frozen layer. */
  uint32_t freeze(Volume& volume) {
    call([&] { require(volume.holdGrants(), "one freeze at a time"); });
    const char text[] = "{}";
    const LogRecord record{0, 2, 0, uint64_t{6} << 56 | crc32c(text, 2), 0};
    std::vector<uint8_t> operation(2 * sizeof record);
    std::memcpy(operation.data(), &record, sizeof record);
    std::memcpy(operation.data() + sizeof record, text, 2);
    std::vector<GivenPlace> dropped = must(volume.freeze(layer_ + 1, operation), "freeze");
    call([&] {
      const std::vector<GivenPlace> held = volume.releaseGrants(true);
      dropped.insert(dropped.end(), held.begin(), held.end());
      layer_++;
      state_.take();
      state_.checkDropped(dropped);
    });
    return layer_ - 1;
  }

  /** On the answering thread, which does nothing else meanwhile; on this one when that does not run. */
  void call(std::function<void()> step) {
    if (!thread_.joinable()) return step();
    std::unique_lock lock(mutex_);
    step_ = std::move(step);
    wanted_ = true;
    wake_.notify_one();
    done_.wait(lock, [this] { return step_ == nullptr; });
  }

  /** Each block of the zones as a layer has it, 0 for that on top: its place, or unknownPlace. */
  std::vector<uint64_t> look(const std::vector<uint64_t>& blocks, uint32_t layer) {
    std::vector<uint64_t> places;
    call([&] {
      state_.take();
      for (const uint64_t block : blocks) places.push_back(state_.find(layer == 0 ? layer_ : layer, block));
    });
    return places;
  }

 private:
  void run(Volume& volume) {
    std::mt19937 random(1);
    std::vector<Fault> late;
    for (;;) {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, std::chrono::milliseconds(late.empty() ? 1000 : 1), [this] { return wanted_; });
      wanted_ = false;
      if (stop_) return;
      if (step_ != nullptr) {
        step_();
        step_ = nullptr;
        done_.notify_all();
      }
      lock.unlock();
      std::vector<Fault> faults = std::move(late);
      late.clear();
      while (volume.takeFaults(faults)) {
      }
      // Some are answered later than others.
      std::erase_if(faults, [&](const Fault& fault) {
        if (random() % 8 != 0) return false;
        late.push_back(fault);
        return true;
      });
      answer(volume, faults);
    }
  }

  void answer(Volume& volume, const std::vector<Fault>& faults) {
    if (faults.empty()) return;
    state_.take();
    std::vector<Grant> grants;
    for (const Fault& fault : faults) {
      if (fault.kind == FaultKind::kReadUnknown) {
        loadLeaf(volume, fault.block);
        continue;
      }
      Grant grant{fault.block, 0, true, true, Grant::noCopy, false, false};
      const uint64_t own = state_.own(layer_, fault.block);
      if (own != unknownPlace) {
        grant.location = own;
        grant.known = true;
      } else {
        bool again = false;
        grant.location = state_.give(fault.block, again);
        const uint64_t old = state_.find(layer_, fault.block);
        grant.reserve = fault.wholeBlock;
        if (!grant.reserve) grant.copyFrom = old == unknownPlace ? -1 : static_cast<int64_t>(old);
      }
      grants.push_back(grant);
    }
    // As if it stood in a queue: what it says may be out of date when it is carried out.
    if (delays_() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(delays_() % 1000));
    if (!grants.empty()) must(volume.grant(std::move(grants)), "grant");
  }

  void loadLeaf(Volume& volume, uint64_t first) {
    std::vector<int64_t> entries(kLeafBlocks, -1);
    for (uint64_t index = 0; index < kLeafBlocks; index++) {
      const uint64_t place = state_.find(layer_, first + index);
      const bool own = place != unknownPlace && state_.own(layer_, first + index) == place;
      if (place != unknownPlace) entries[index] = static_cast<int64_t>(place * 2 + (own ? 1 : 0));
    }
    must(volume.loadLeaf(first / kLeafBlocks, std::move(entries)), "load a leaf");
  }

  State state_;
  std::mt19937 delays_{2};
  /** Changed on the answering thread; who freezes, alone, may read it. */
  uint32_t layer_ = 1;

  /** Guards what follows. */
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  bool wanted_ = false;
  bool stop_ = false;
  std::function<void()> step_;
  std::thread thread_;
};

/** One of those who write. What each sector of its regions held, when. */
class Host {
 public:
  Host(uint32_t number, uint32_t seed) : number_(number), random_(seed) {
    uint64_t index = 0;
    for (const uint64_t zone : zones) {
      for (uint64_t at = 0; at < zoneBytes; at += regionBytes, index++) {
        if (index % hostThreads != number_) continue;
        regions_.push_back({zone + at, std::min(regionBytes, zoneBytes - at)});
      }
    }
  }

  void run(const std::string& device) {
    const UniqueFd fd(open(device.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC));
    require(static_cast<bool>(fd), "open the device");
    const std::unique_ptr<void, void (*)(void*)> memory(std::aligned_alloc(4096, 1 << 20), std::free);
    auto* words = static_cast<uint64_t*>(memory.get());
    for (int request = 0; request < requestsEach; request++) {
      const auto [begin, length] = regions_[random_() % regions_.size()];
      // Now and then all of it, so that whole blocks are met.
      const uint64_t sectors = random_() % 4 == 0 ? length / sectorBytes : 1 + random_() % (length / sectorBytes);
      const uint64_t first = begin / sectorBytes + random_() % (length / sectorBytes - sectors + 1);
      const uint64_t kind = random_() % 16;
      if (kind == 0) {
        require(fdatasync(fd.get()) == 0, "sync");
      } else if (kind == 8 || kind == 9) {
        race(fd.get(), words, begin, length);
      } else if (kind < 5) {
        check(fd.get(), words, first, sectors);
      } else if (kind < 8) {
        start(first, sectors, [](uint64_t) { return true; });
        uint64_t range[2] = {first * sectorBytes, sectors * sectorBytes};
        require(ioctl(fd.get(), kind == 5 ? BLKZEROOUT : BLKDISCARD, range) == 0, "discard");
        completed_ = started_.load();
      } else {
        write(fd.get(), words, first, sectors);
      }
    }
    for (const auto& [begin, length] : regions_) check(fd.get(), words, begin / sectorBytes, length / sectorBytes);
  }

  uint32_t completed() const { return completed_; }
  uint32_t started() const { return started_; }

  /** Whether a sector that holds this may be so after every request up to `from` and some of those up to `to`. */
  bool mayHold(uint64_t sector, uint64_t word, uint32_t from, uint32_t to) {
    const std::lock_guard lock(mutex_);
    uint64_t last = 0;
    for (const auto& [sequence, value] : history_[sector]) {
      if (sequence <= from) {
        last = value;
      } else if (sequence <= to && value == word) {
        return true;
      }
    }
    return last == word;
  }
  bool owns(uint64_t sector) const {
    for (const auto& [begin, length] : regions_) {
      if (sector >= begin / sectorBytes && sector < (begin + length) / sectorBytes) return true;
    }
    return false;
  }

 private:
  template <typename IsZero>
  void start(uint64_t first, uint64_t sectors, IsZero isZero) {
    const std::lock_guard lock(mutex_);
    const uint32_t sequence = started_ + 1;
    for (uint64_t sector = first; sector < first + sectors; sector++) {
      const uint64_t word = isZero(sector) ? 0 : uint64_t{sequence} << 32 | sector << 4 | (number_ + 1);
      history_[sector].emplace_back(sequence, word);
    }
    started_ = sequence;
  }

  void write(int fd, uint64_t* words, uint64_t first, uint64_t sectors) {
    const uint64_t zeros = random_();
    // Whole blocks of zeros, and parts where a block is cut.
    start(first, sectors, [&](uint64_t sector) { return (zeros >> (sector / sectorsEach % 16) * 4 & 15) < 4; });
    for (uint64_t index = 0; index < sectors; index++) {
      const uint64_t word = history_[first + index].back().second;
      std::fill_n(words + index * (sectorBytes / 8), sectorBytes / 8, word);
    }
    const auto whole = static_cast<ssize_t>(sectors * sectorBytes);
    require(pwrite(fd, words, sectors * sectorBytes, static_cast<off_t>(first * sectorBytes)) == whole, "write");
    completed_ = started_.load();
  }

  /** A write to a part of a block, and a trim of that block at the same time. Nothing of what was there may be left. */
  void race(int fd, uint64_t* words, uint64_t begin, uint64_t length) {
    const uint64_t block = (begin + blockBytes - 1) / blockBytes + random_() % (length / blockBytes - 1);
    const uint64_t first = block * sectorsEach;
    const uint64_t from = first + random_() % (sectorsEach - 1);
    const uint64_t count = 1 + random_() % (first + sectorsEach - 1 - from);
    start(from, count, [](uint64_t) { return false; });
    const uint32_t sequence = started_;
    note(first, sectorsEach, [&](uint64_t) { return std::pair(sequence, uint64_t{0}); });
    for (uint64_t index = 0; index < count; index++) {
      const uint64_t word = uint64_t{sequence} << 32 | (from + index) << 4 | (number_ + 1);
      std::fill_n(words + index * (sectorBytes / 8), sectorBytes / 8, word);
    }
    std::thread other([&, pause = random_() % 300] {
      std::this_thread::sleep_for(std::chrono::microseconds(pause));
      uint64_t range[2] = {first * sectorBytes, blockBytes};
      require(ioctl(fd, BLKDISCARD, range) == 0, "discard");
    });
    const auto whole = static_cast<ssize_t>(count * sectorBytes);
    require(pwrite(fd, words, count * sectorBytes, static_cast<off_t>(from * sectorBytes)) == whole, "write");
    other.join();
    // Either came last.
    require(pread(fd, words, sectorBytes, static_cast<off_t>(from * sectorBytes)) == sectorBytes, "read");
    if (*words != 0) {
      note(from, count, [&](uint64_t sector) {
        return std::pair(sequence, uint64_t{sequence} << 32 | sector << 4 | (number_ + 1));
      });
    }
    completed_ = sequence;
    check(fd, words, first, sectorsEach);
  }

  template <typename Entry>
  void note(uint64_t first, uint64_t sectors, Entry entry) {
    const std::lock_guard lock(mutex_);
    for (uint64_t sector = first; sector < first + sectors; sector++) history_[sector].push_back(entry(sector));
  }

  void check(int fd, uint64_t* words, uint64_t first, uint64_t sectors) {
    const auto whole = static_cast<ssize_t>(sectors * sectorBytes);
    require(pread(fd, words, sectors * sectorBytes, static_cast<off_t>(first * sectorBytes)) == whole, "read");
    for (uint64_t index = 0; index < sectors; index++) {
      const auto& history = history_[first + index];
      const uint64_t word = history.empty() ? 0 : history.back().second;
      for (uint64_t at = 0; at < sectorBytes / 8; at++) {
        if (words[index * (sectorBytes / 8) + at] == word) continue;
        std::fprintf(stderr, "stress: sector %llu: %llx, not %llx\n", static_cast<unsigned long long>(first + index),
                     static_cast<unsigned long long>(words[index * (sectorBytes / 8) + at]),
                     static_cast<unsigned long long>(word));
        require(false, "what was written is read");
      }
    }
  }

  const uint32_t number_;
  std::mt19937 random_;
  std::vector<std::pair<uint64_t, uint64_t>> regions_;
  std::atomic<uint32_t> started_{0};
  std::atomic<uint32_t> completed_{0};
  /** Guards what follows, for each sector, against those who look; its thread alone changes it. */
  std::mutex mutex_;
  std::vector<std::vector<std::pair<uint32_t, uint64_t>>> history_{volumeBytes / sectorBytes};
};

std::vector<uint64_t> zoneBlocks() {
  std::vector<uint64_t> blocks;
  for (const uint64_t zone : zones) {
    for (uint64_t block = zone / blockBytes; block * blockBytes < zone + zoneBytes; block++) blocks.push_back(block);
  }
  return blocks;
}

/** What a layer holds in the zones, straight from the pool. */
std::vector<uint64_t> contentOf(Pool& pool, Answering& answering, uint32_t layer) {
  const std::vector<uint64_t> places = answering.look(zoneBlocks(), layer);
  std::vector<uint64_t> words(places.size() * blockBytes / 8);
  for (size_t index = 0; index < places.size(); index++) {
    if (places[index] == unknownPlace) continue;
    require(pool.read(places[index] * blockBytes, &words[index * blockBytes / 8], blockBytes) == 0, "read the pool");
  }
  return words;
}

using Progress = std::array<uint32_t, hostThreads>;

/** Every sector holds what its owner had written between these two points; what is nobody's, zeros. */
void checkContent(const std::vector<uint64_t>& words, std::vector<std::unique_ptr<Host>>& hosts, const Progress& from,
                  const Progress& to) {
  const std::vector<uint64_t> blocks = zoneBlocks();
  for (size_t index = 0; index < words.size(); index += sectorBytes / 8) {
    const uint64_t sector = blocks[index * 8 / blockBytes] * sectorsEach + index * 8 / sectorBytes % sectorsEach;
    const uint64_t word = words[index];
    for (uint64_t at = 1; at < sectorBytes / 8; at++) require(words[index + at] == word, "a sector is whole");
    bool held = word == 0;
    for (size_t host = 0; host < hosts.size(); host++) {
      if (hosts[host]->owns(sector)) held = hosts[host]->mayHold(sector, word, from[host], to[host]);
    }
    if (held) continue;
    std::fprintf(stderr, "stress: sector %llu of a snapshot: %llx\n", static_cast<unsigned long long>(sector),
                 static_cast<unsigned long long>(word));
    require(false, "a snapshot holds what was written when it was taken");
  }
}

std::shared_ptr<Pool> openPool(const std::string& folder) {
  PoolOptions options;
  options.name = "stress";
  options.devices.push_back({folder + "/pool", (firstPlace + placeCount) * blockBytes});
  makeFile(options.devices[0].path, options.devices[0].sizeBytes);
  // What lies in the pool from before must never be seen.
  const UniqueFd fd(open(options.devices[0].path.c_str(), O_WRONLY | O_CLOEXEC));
  const std::vector<uint8_t> old(1 << 20, 0xee);
  for (uint64_t at = firstPlace * blockBytes; at < options.devices[0].sizeBytes; at += old.size()) {
    require(pwrite(fd.get(), old.data(), old.size(), static_cast<off_t>(at)) > 0, "fill the pool");
  }
  options.blockBytes = blockBytes;
  options.log = {logOffset, logPlaces, 7, 0, 0};
  return must(Pool::open(std::move(options)), "open the pool");
}

}  // namespace

void runThin(const std::string& folder) {
  const std::string mountPoint = folder + "/mount";
  makeFile(mountPoint, 0);
  const char* given = std::getenv("TIDEMARK_SEED");
  const auto seed = static_cast<uint32_t>(given != nullptr ? std::strtoul(given, nullptr, 10) : std::random_device{}());
  std::fprintf(stderr, "seed %u (TIDEMARK_SEED=... repeats it)\n", seed);
  std::shared_ptr<Pool> pool = openPool(folder);
  std::shared_ptr<Journal> journal = openJournal(folder);
  Answering answering(*pool);
  std::vector<std::unique_ptr<Host>> hosts;
  for (uint32_t host = 0; host < hostThreads; host++) hosts.push_back(std::make_unique<Host>(host, seed + host));
  std::map<uint32_t, std::vector<uint64_t>> snapshots;
  const auto progress = [&](uint32_t (Host::*point)() const) {
    Progress all;
    for (size_t host = 0; host < hosts.size(); host++) all[host] = (hosts[host].get()->*point)();
    return all;
  };
  VolumeCounters counters{};
  uint64_t sizeBytes = volumeBytes;
  for (int round = 0; round < rounds; round++) {
    VolumeOptions options;
    options.name = "stress";
    options.sizeBytes = sizeBytes;
    options.threads = 3;
    options.tableBlockBytes = blockBytes;
    options.pool = pool;
    options.layer = answering.layer();
    options.onFaults = answering.listener();
    std::unique_ptr<Volume> volume = must(Volume::open(std::move(options)), "open the volume");
    answering.begin(*volume);
    const std::string device = must(volume->attach(mountPoint), "attach").device;
    std::vector<std::thread> threads;
    for (const auto& host : hosts) threads.emplace_back([&host, &device] { host->run(device); });
    for (int i = 0; i < freezesEach; i++) {
      must(volume->setJournal(journal, 1), "set the journal");
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      const Progress from = progress(&Host::completed);
      const uint32_t layer = answering.freeze(*volume);
      const Progress to = progress(&Host::started);
      snapshots[layer] = contentOf(*pool, answering, layer);
      checkContent(snapshots[layer], hosts, from, to);
      must(volume->setJournal(nullptr, 0), "take the journal");
      must(volume->syncBacking(), "sync the pool");
      sizeBytes += blockBytes / 2;
      must(volume->resize(sizeBytes), "grow");
    }
    for (std::thread& thread : threads) thread.join();
    must(volume->detach(), "detach");
    const Progress end = progress(&Host::completed);
    checkContent(contentOf(*pool, answering, 0), hosts, end, end);
    counters = volume->counters();
    require(counters.inFlight == 0 && counters.errors == 0, "requests left or failed");
    answering.end();
    must(volume->close(), "close the volume");
    volume.reset();
    answering.dropAll();
  }
  for (const auto& [layer, content] : snapshots) {
    require(contentOf(*pool, answering, layer) == content, "a snapshot stays what it was");
  }
  must(journal->close(), "close the journal");
  pool->close();
  std::printf("thin: %llu writes, %llu reads, %llu trims, %llu flushes, %llu faults, %llu bytes copied\n",
              static_cast<unsigned long long>(counters.writes), static_cast<unsigned long long>(counters.reads),
              static_cast<unsigned long long>(counters.trims), static_cast<unsigned long long>(counters.flushes),
              static_cast<unsigned long long>(counters.faults), static_cast<unsigned long long>(counters.copiedBytes));
}

}  // namespace tidemark::stress

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

#include "../../native/pool/pool.h"
#include "../../native/sys/crc32c.h"
#include "check.h"

namespace tidemark::test {

constexpr uint32_t kPoolSeed = 0x12345678;
constexpr uint64_t kRingOffset = 64 << 10;
constexpr uint64_t kRingPlaces = kLogCapacityMinimum;
constexpr uint64_t kPoolDeviceBytes = 4 << 20;
constexpr uint32_t kPoolBlockBytes = 4 << 10;

inline std::string makeDeviceFile(const TemporaryFolder& folder, const std::string& name,
                                  uint64_t bytes = kPoolDeviceBytes) {
  const std::string path = folder.path() + "/" + name;
  std::ofstream file(path, std::ios::binary);
  file.seekp(static_cast<std::streamoff>(bytes - 1));
  file.put('\0');
  return path;
}

inline std::vector<uint8_t> readFile(const std::string& path, uint64_t offset, uint64_t length) {
  std::vector<uint8_t> bytes(length);
  std::ifstream file(path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(length));
  return bytes;
}

struct WalkedLogRecord {
  uint64_t sequence;
  LogRecordType type;
  uint32_t layer;
  uint64_t subject;
  uint64_t value;
  std::string text;
};

/** Reads places by the words of FORMAT.md, byte by byte, sharing nothing with the log but the checksum's table. */
class LogWalk {
 public:
  LogWalk(const std::vector<uint8_t>& places, bool isRing, uint32_t seed = kPoolSeed)
      : places_(places), isRing_(isRing), seed_(seed) {}

  /** From a sequence to the first place that is not valid. */
  std::vector<WalkedLogRecord> from(uint64_t sequence) const {
    std::vector<WalkedLogRecord> records;
    const uint64_t first = sequence;
    const uint64_t count = places_.size() / 32;
    while (sequence - first < count) {
      const uint8_t* at = place(sequence, first);
      WalkedLogRecord record{sequence, static_cast<LogRecordType>(at[23]), static_cast<uint32_t>(little(at + 4, 4)),
                             little(at + 16, 7), little(at + 24, 8), ""};
      std::vector<uint8_t> sealed(4);
      for (size_t byte = 0; byte < 4; byte++) sealed[byte] = static_cast<uint8_t>(seed_ >> (8 * byte));
      sealed.insert(sealed.end(), at + 4, at + 32);
      if (little(at, 4) != crc32cTable(sealed.data(), sealed.size())) break;
      if (little(at + 8, 8) != sequence || at[23] < 1 || at[23] > 6) break;
      sequence++;
      if (record.type == LogRecordType::kOperation) {
        const uint64_t texts = (record.layer + 31) / 32;
        if (texts > count - (sequence - first)) break;
        for (uint64_t i = 0; i < texts; i++) {
          record.text.append(reinterpret_cast<const char*>(place(sequence + i, first)), 32);
        }
        record.text.resize(record.layer);
        if (crc32cTable(record.text.data(), record.text.size()) != record.subject) break;
        sequence += texts;
      }
      records.push_back(std::move(record));
    }
    return records;
  }

 private:
  static uint64_t little(const uint8_t* at, int bytes) {
    uint64_t value = 0;
    for (int byte = bytes - 1; byte >= 0; byte--) value = value << 8 | at[byte];
    return value;
  }
  const uint8_t* place(uint64_t sequence, uint64_t first) const {
    const uint64_t count = places_.size() / 32;
    return places_.data() + (isRing_ ? sequence % count : sequence - first) * 32;
  }

  const std::vector<uint8_t>& places_;
  bool isRing_;
  uint32_t seed_;
};

/** What was raised, in order. */
class LogEvents {
 public:
  std::function<void(const LogEvent&)> listener() {
    return [this](const LogEvent& event) {
      const std::lock_guard lock(mutex_);
      events_.push_back(event);
    };
  }
  size_t count(LogEvent::Kind kind) const {
    const std::lock_guard lock(mutex_);
    size_t found = 0;
    for (const LogEvent& event : events_) found += event.kind == kind ? 1 : 0;
    return found;
  }
  std::string failure() const {
    const std::lock_guard lock(mutex_);
    for (const LogEvent& event : events_) {
      if (event.kind == LogEvent::Kind::kFailed) return event.message;
    }
    return "";
  }

 private:
  mutable std::mutex mutex_;
  std::vector<LogEvent> events_;
};

/** Places for append(): a record that is not an operation. */
inline std::vector<uint8_t> recordOf(LogRecordType type, uint32_t layer, uint64_t subject, uint64_t value) {
  const LogRecord record{0, layer, 0, subject | static_cast<uint64_t>(type) << 56, value};
  std::vector<uint8_t> bytes(sizeof record);
  std::memcpy(bytes.data(), &record, sizeof record);
  return bytes;
}

/** An operation with its text. */
inline std::vector<uint8_t> operationOf(const std::string& text) {
  const uint32_t crc = crc32c(text.data(), text.size());
  std::vector<uint8_t> bytes = recordOf(LogRecordType::kOperation, static_cast<uint32_t>(text.size()), crc, 0);
  bytes.insert(bytes.end(), text.begin(), text.end());
  bytes.resize((bytes.size() + 31) / 32 * 32);
  return bytes;
}

}  // namespace tidemark::test

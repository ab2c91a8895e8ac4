// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>

#include "check.h"

namespace tidemark::test {
namespace {
std::atomic<int> passed{0};
std::atomic<int> failed{0};
}  // namespace

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

void check(bool held, const char* expression, const char* file, int line) {
  if (held) {
    ++passed;
    return;
  }
  ++failed;
  std::printf("not ok: %s (%s:%d)\n", expression, file, line);
}

uint64_t seed() {
  static const uint64_t value = [] {
    const char* given = std::getenv("TIDEMARK_SEED");
    const uint64_t chosen = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::printf("seed %llu (TIDEMARK_SEED=... repeats it)\n", static_cast<unsigned long long>(chosen));
    return chosen;
  }();
  return value;
}

bool eventually(const std::function<bool()>& condition) {
  for (int attempt = 0; attempt < 10'000; ++attempt) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "tidemark-native-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) std::abort();
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace tidemark::test

/** Runs every test, or those whose fact contains the argument. Exit code 1 when a check failed. */
int main(int argc, char** argv) {
  using namespace tidemark::test;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  for (const Test& test : tests()) {
    if (argc > 1 && test.fact.find(argv[1]) == std::string::npos) continue;
    const int before = failed;
    const auto began = std::chrono::steady_clock::now();
    test.run();
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began);
    std::printf("%s - %s (%lld ms)\n", failed == before ? "ok" : "NOT OK", test.fact.c_str(),
                static_cast<long long>(took.count()));
  }
  std::printf("# %d passed, %d failed\n", passed.load(), failed.load());
  return failed == 0 ? 0 : 1;
}

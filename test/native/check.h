// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

/** What the plain C++ tests are written with: facts (TEST) made of checks (CHECK). A failed check does not throw. */
namespace tidemark::test {

struct Test {
  std::string fact;
  void (*run)();
};

std::vector<Test>& tests();
void check(bool held, const char* expression, const char* file, int line);
/** From TIDEMARK_SEED or the clock; printed once, so that a failure can be repeated. */
uint64_t seed();
/** Waits up to ten seconds until it holds. */
bool eventually(const std::function<bool()>& condition);

/** A private folder, removed with what is in it. */
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct Registration {
  Registration(const char* fact, void (*run)()) { tests().push_back(Test{fact, run}); }
};

}  // namespace tidemark::test

#define TIDEMARK_JOIN2(a, b) a##b
#define TIDEMARK_JOIN(a, b) TIDEMARK_JOIN2(a, b)
#define TEST(fact)                                                                                         \
  static void TIDEMARK_JOIN(test_, __LINE__)();                                                            \
  static ::tidemark::test::Registration TIDEMARK_JOIN(register_, __LINE__)(fact, TIDEMARK_JOIN(test_, __LINE__)); \
  static void TIDEMARK_JOIN(test_, __LINE__)()
#define CHECK(expression) ::tidemark::test::check(static_cast<bool>(expression), #expression, __FILE__, __LINE__)

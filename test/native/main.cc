// SPDX-License-Identifier: MIT
#include <cstdio>
#include <cstring>
#include <unistd.h>
#include <vector>

#include "check.h"

namespace fdmove::test {

namespace {

struct Test {
  const char* name;
  Body body;
};

std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}

/** A test that hangs ends the whole run. */
constexpr unsigned kDeadlineSeconds = 60;

int failed_checks = 0;
std::string skipped;

}  // namespace

Registration::Registration(const char* name, Body body) { tests().push_back({name, body}); }

void fail(const char* file, int line, const std::string& what) {
  failed_checks++;
  printf("    %s:%d: %s\n", file, line, what.c_str());
}

void skip(const std::string& why) { skipped = why; }

/** Runs the tests whose name contains `filter`; yields how many failed. */
int run(const char* filter) {
  int passed = 0, failed = 0, left_out = 0;
  for (const Test& test : tests()) {
    if (filter != nullptr && strstr(test.name, filter) == nullptr) continue;
    failed_checks = 0;
    skipped.clear();
    fflush(stdout);  // what a forked process has in its buffer it would print again
    alarm(kDeadlineSeconds);
    test.body();
    alarm(0);
    const char* verdict = failed_checks > 0 ? "FAIL" : !skipped.empty() ? "skip" : "ok  ";
    (failed_checks > 0 ? failed : !skipped.empty() ? left_out : passed)++;
    printf("%s %s%s%s\n", verdict, test.name, skipped.empty() ? "" : ": ", skipped.c_str());
  }
  if (left_out > 0)
    printf("native: %d passed, %d failed, %d skipped\n", passed, failed, left_out);
  else
    printf("native: %d passed, %d failed\n", passed, failed);
  return failed + (passed == 0 ? 1 : 0);
}

}  // namespace fdmove::test

/** native-tests [PART-OF-A-NAME] */
int main(int argc, char** argv) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  return fdmove::test::run(argc > 1 ? argv[1] : nullptr) == 0 ? 0 : 1;
}

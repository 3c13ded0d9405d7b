// SPDX-License-Identifier: MIT
/** As much of a test framework as these tests need: named tests, checks that go on after a failure, and counts. */
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

namespace fdmove::test {

using Body = void (*)();

/** Adds a test to the list that main() runs, in the order of definition within a file. */
struct Registration {
  Registration(const char* name, Body body);
};

/** Notes a failed check of the running test. */
void fail(const char* file, int line, const std::string& what);

/** Leaves the running test out, saying why. */
void skip(const std::string& why);

template <class T>
std::string show(const T& value) {
  if constexpr (requires { std::string(value); })
    return std::string(1, '"').append(value).append(1, '"');
  else if constexpr (requires { std::to_string(value); })
    return std::to_string(value);
  else
    return "(a value)";
}

/** Texts are equal by what they say, wherever they stand. */
template <class A, class B>
bool equal(const A& a, const B& b) {
  if constexpr (std::is_convertible_v<A, std::string_view> && std::is_convertible_v<B, std::string_view>)
    return std::string_view(a) == std::string_view(b);
  else
    return a == b;
}

}  // namespace fdmove::test

#define FDMOVE_JOIN2(a, b) a##b
#define FDMOVE_JOIN(a, b) FDMOVE_JOIN2(a, b)

/** TEST("a sentence of behaviour") { ... } */
#define TEST(name)                                                                                              \
  static void FDMOVE_JOIN(test_body_, __LINE__)();                                                               \
  static const ::fdmove::test::Registration FDMOVE_JOIN(test_, __LINE__)(name, FDMOVE_JOIN(test_body_, __LINE__)); \
  static void FDMOVE_JOIN(test_body_, __LINE__)()

#define CHECK(condition)                                                    \
  do {                                                                      \
    if (!(condition)) ::fdmove::test::fail(__FILE__, __LINE__, #condition); \
  } while (0)

#define CHECK_EQUAL(actual, expected)                                                                               \
  do {                                                                                                              \
    const auto check_actual_ = (actual); /* a copy: it may be part of a temporary */                                \
    const auto check_expected_ = (expected);                                                                        \
    if (!::fdmove::test::equal(check_actual_, check_expected_))                                                                      \
      ::fdmove::test::fail(__FILE__, __LINE__,                                                                      \
                           std::string(#actual " is ") + ::fdmove::test::show(check_actual_) + ", not " +          \
                               ::fdmove::test::show(check_expected_));                                              \
  } while (0)

/** Ends the test when the Result is a failure, and says which. */
#define CHECK_OK(result)                                                                                              \
  do {                                                                                                                \
    const auto& check_result_ = (result);                                                                             \
    if (!check_result_.ok()) {                                                                                        \
      const auto& check_failure_ = check_result_.failure();                                                           \
      ::fdmove::test::fail(__FILE__, __LINE__,                                                                        \
                           std::string(#result ": ") + check_failure_.call + ", errno " +                             \
                               std::to_string(check_failure_.error) + " " + check_failure_.detail);                   \
      return;                                                                                                         \
    }                                                                                                                 \
  } while (0)

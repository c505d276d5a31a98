// What the programs share that run CPU kernels under sanitizers: a check that ends the program, and random numbers.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

#define REQUIRE(CONDITION)                                                       \
  do {                                                                           \
    if (!(CONDITION)) {                                                          \
      std::fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #CONDITION); \
      std::exit(1);                                                              \
    }                                                                            \
  } while (false)

namespace merlin {

inline std::mt19937 random_bits(20261123);

// Of all integers from the first to the last.
inline int64_t Draw(int64_t from, int64_t to) { return std::uniform_int_distribution<int64_t>(from, to)(random_bits); }

}  // namespace merlin

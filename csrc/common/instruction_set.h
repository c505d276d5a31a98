// Which of the kernels compiled for several instruction sets this machine runs.
#pragma once

namespace merlin {

// Null where the compiler's target has no such set. `avx512` needs F, BW, VL and DQ; `avx2` FMA and F16C, too.
template <typename Kernels>
const Kernels* BestOf(const Kernels* avx512, const Kernels* avx2, const Kernels* baseline) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    return avx512;
  }
  if (avx2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2;
#endif
  return baseline;
}

}  // namespace merlin

// Memory for what a kernel computes on the way.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace merlin {

// An array that is not initialised. A large one asks for huge pages: a pass over megabytes then spends no time on page
// faults and on misses of the address translation, both dear on a virtual machine.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count) {
    constexpr size_t kHugePage = size_t{1} << 21, kLine = 64;
    const size_t bytes = static_cast<size_t>(count) * sizeof(T), align = bytes < kHugePage ? kLine : kHugePage;
    const size_t whole = (bytes / align + 1) * align;
    data_ = static_cast<T*>(std::aligned_alloc(align, whole));
    if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    if (align == kHugePage) madvise(data_, whole, MADV_HUGEPAGE);  // advice: nothing depends on its being taken
#endif
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  T* get() const { return data_; }

 private:
  T* data_;
};

}  // namespace merlin

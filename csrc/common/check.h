// Errors of the kernels: thrown on the host, translated at the boundary (to a tf::Status or a Python exception).
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace merlin {

// The caller passed something that breaks a documented rule; the message names argument, rule and value.
struct InvalidArgument : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// The device or its driver reported a failure.
struct DeviceFailure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <typename... Parts>
std::string Concat(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

template <typename... Parts>
void Check(bool condition, const Parts&... parts) {
  if (!condition) throw InvalidArgument(Concat(parts...));
}

}  // namespace merlin

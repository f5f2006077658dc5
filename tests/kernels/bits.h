// Compares the vectorised forms of the CPU's operations with the reference, bit for bit.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tests/kernels/device.h"

namespace catserve::testing {

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

// Results of an operation on its first `rows` rows.
using Operation = std::function<std::vector<float>(Backend&, int64_t rows)>;

// Compares one form with the reference.
class BitsTest : public OnEveryBackend {
 protected:
  // Runs an operation in the form with several counts of rows and threads; every row must keep the
  // bits that it has in the reference with one thread and all rows.
  void ExpectSameBitsEverywhere(const Operation& operation, const std::vector<int64_t>& rows) {
    const int64_t most = *std::max_element(rows.begin(), rows.end());
    const std::vector<float> want = operation(*Make("cpu-reference", 1), most);
    const int64_t width = static_cast<int64_t>(want.size()) / most;
    const auto check = [&](const std::string& name, int threads, int64_t count) {
      const std::vector<float> got = operation(*Make(name, threads), count);
      ASSERT_TRUE(SameBits(got, {want.begin(), want.begin() + count * width}))
          << name << " with " << threads << " threads and " << count << " rows";
    };
    check("cpu-reference", 3, rows.front());
    for (const int threads : {1, 2, 3, 8}) {
      for (const int64_t count : rows) check(GetParam(), threads, count);
    }
  }
};

inline std::vector<std::string> VectorisedForms() {
  std::vector<std::string> names = BackendNames();
  std::erase_if(names, [](const std::string& name) {
    return !name.starts_with("cpu-") || name == "cpu-reference";
  });
  return names;
}

}  // namespace catserve::testing

// What the kernel tests share: the backends to test, tensors in a backend's memory, random numbers.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "kernels/bfloat16.h"

namespace catserve::testing {

inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What a test is linked with decides which backends there are: those of this build and machine
// (backends.cc), or the emulated one (cuda/emulated_backends.cc), which no build ships.

// A test about a backend that is missing cannot be written.
std::unique_ptr<Backend> Make(const std::string& name, int threads = 2);

// Names of the backends that the contract suites run on. One of this build that does not start here
// is among them: its tests are skipped, and reported as that.
std::vector<std::string> BackendNames();
bool Starts(const std::string& name);

// How often a test draws whose expectation is of many draws: all of `full`, or the least that shows
// anything where a draw takes milliseconds.
int Repeats(int full, int least);

inline std::string BackendTestName(const ::testing::TestParamInfo<std::string>& info) {
  std::string name;
  for (const char c : info.param) name += c == '-' ? '_' : c;
  return name;
}

// Base of the suites that run once for every backend.
class OnEveryBackend : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!Starts(GetParam())) GTEST_SKIP() << GetParam() << " does not start on this machine";
    backend_ = Make(GetParam());
  }

  std::unique_ptr<Backend> backend_;
};

#define CATSERVE_ON_EVERY_BACKEND(Suite)                                             \
  INSTANTIATE_TEST_SUITE_P(Backends, Suite,                                          \
                           ::testing::ValuesIn(::catserve::testing::BackendNames()), \
                           ::catserve::testing::BackendTestName)

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}

  std::vector<float> Normal(int64_t n, float scale = 1.0f) {
    std::normal_distribution<float> normal(0.0f, scale);
    std::vector<float> values(n);
    for (float& value : values) value = normal(engine_);
    return values;
  }
  int32_t Below(int32_t n) { return std::uniform_int_distribution<int32_t>(0, n - 1)(engine_); }
  std::vector<int32_t> Permutation(int32_t n) {
    std::vector<int32_t> ids(n);
    for (int32_t i = 0; i < n; ++i) ids[i] = i;
    std::shuffle(ids.begin(), ids.end(), engine_);
    return ids;
  }

 private:
  std::mt19937 engine_;
};

// A tensor in the backend's memory.
class Tensor {
 public:
  Tensor(Backend& backend, DType dtype, std::initializer_list<int64_t> dims)
      : backend_(backend), view_(nullptr, dtype, dims) {
    buffer_ = backend.Allocate(view_.size() * SizeOf(dtype)).value();
    view_.data = buffer_->data();
  }
  // F32 with these values.
  Tensor(Backend& backend, std::initializer_list<int64_t> dims, const std::vector<float>& values)
      : Tensor(backend, DType::kF32, dims) {
    Write(values.data(), static_cast<int64_t>(values.size()) * 4);
  }
  // F32, poisoned with NaN: whatever an operation forgets to write shows.
  Tensor(Backend& backend, std::initializer_list<int64_t> dims)
      : Tensor(backend, dims, std::vector<float>(Elements(dims), kNaN)) {}

  operator const TensorView&() const { return view_; }
  const TensorView& view() const { return view_; }

  void Write(const void* from, int64_t bytes) {
    EXPECT_LE(bytes, buffer_->bytes());
    backend_.Copy(buffer_->data(), from, bytes);
    backend_.Synchronize();
  }
  template <typename T>
  std::vector<T> ReadAs() const {
    std::vector<T> values(buffer_->bytes() / sizeof(T));
    backend_.Copy(values.data(), buffer_->data(), buffer_->bytes());
    backend_.Synchronize();
    return values;
  }
  std::vector<float> Read() const { return ReadAs<float>(); }

 private:
  static int64_t Elements(std::initializer_list<int64_t> dims) {
    int64_t n = 1;
    for (const int64_t dim : dims) n *= dim;
    return n;
  }

  Backend& backend_;
  TensorView view_;
  std::unique_ptr<Buffer> buffer_;
};

// A host matrix that Pack and Upload take, with its values as the dtype holds them.
struct HostMatrix {
  HostMatrix(DType dtype, int64_t rows, int64_t columns, const std::vector<float>& from)
      : dtype(dtype), rows(rows), columns(columns), values(from) {
    for (float& value : values) {
      if (dtype == DType::kF32) continue;
      const bool bf16 = dtype == DType::kBF16;
      bits.push_back(bf16 ? BF16FromFloat(value) : F16FromFloat(value));
      value = bf16 ? FloatFromBF16(bits.back()) : FloatFromF16(bits.back());
    }
  }
  TensorView view() {
    void* data = dtype == DType::kF32 ? static_cast<void*>(values.data()) : bits.data();
    return TensorView(data, dtype, {rows, columns});
  }

  DType dtype;
  int64_t rows;
  int64_t columns;
  std::vector<float> values;
  std::vector<uint16_t> bits;
};

inline std::string DTypeTestName(DType dtype) { return Name(dtype); }

}  // namespace catserve::testing

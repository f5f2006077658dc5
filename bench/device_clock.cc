#include "bench/device_clock.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>
#include <vector>

#include "bench/random_numbers.h"

namespace catserve {
namespace {

constexpr double kSampleSeconds = 5e-3;  // a try repeats its work for about so long
constexpr int kRepeatsMax = 1000;

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

int ExitStatus(const absl::Status& status) {
  if (status.ok()) return 0;
  return absl::IsUnavailable(status) ? 3 : 1;
}

absl::StatusOr<std::unique_ptr<Buffer>> FilledBuffer(Backend& backend, int64_t bytes,
                                                     const void* block, int64_t block_bytes) {
  auto buffer = backend.Allocate(bytes);
  if (!buffer.ok()) return buffer.status();
  char* const data = static_cast<char*>((*buffer)->data());
  int64_t filled = std::min(bytes, block_bytes);
  backend.Copy(data, block, filled);
  while (filled < bytes) {
    const int64_t more = std::min(filled, bytes - filled);
    backend.Copy(data + filled, data, more);
    filled += more;
  }
  backend.Synchronize();
  return buffer;
}

absl::StatusOr<DeviceClock> DeviceClock::Create(Backend& backend, const ProbeSizes& sizes) {
  DeviceClock clock(backend, sizes);
  const std::vector<uint16_t> block = RandomBF16(1 << 16, 1.0f);
  auto memory = FilledBuffer(backend, 2 * sizes.copy_bytes, block.data(),
                             static_cast<int64_t>(block.size()) * SizeOf(DType::kBF16));
  if (!memory.ok()) return memory.status();
  clock.memory_ = *std::move(memory);
  const double one = clock.Time([] {});
  clock.copies_ = std::max(1, static_cast<int>(std::ceil(sizes.head_start_seconds / one)));
  return clock;
}

void DeviceClock::HeadStart() {
  char* const data = static_cast<char*>(memory_->data());
  for (int i = 0; i < copies_; ++i)
    backend_.Copy(data + sizes_.copy_bytes, data, sizes_.copy_bytes);
}

double DeviceClock::Time(const std::function<void()>& work) {
  backend_.Synchronize();
  const auto start = std::chrono::steady_clock::now();
  HeadStart();
  backend_.Submit();
  work();
  backend_.Synchronize();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double DeviceClock::SecondsOf(const std::function<void()>& work) {
  const auto less_head_start = [&](int repeats) {
    const double alone = Time([] {});
    const double both = Time([&] {
      for (int i = 0; i < repeats; ++i) work();
    });
    return std::max(both - alone, 1e-9) / repeats;
  };
  less_head_start(1);  // loads kernels, chooses algorithms
  const double once = less_head_start(1);
  const int repeats =
      static_cast<int>(std::clamp(kSampleSeconds / once, 1.0, static_cast<double>(kRepeatsMax)));
  std::vector<double> tries(sizes_.tries);
  for (double& seconds : tries) seconds = less_head_start(repeats);
  return Median(std::move(tries));
}

absl::StatusOr<Ceilings> DeviceClock::MeasureCeilings() {
  Ceilings best;
  char* const data = static_cast<char*>(memory_->data());
  const double copy =
      SecondsOf([&] { backend_.Copy(data + sizes_.copy_bytes, data, sizes_.copy_bytes); });
  best.read_bytes_per_second = 2.0 * static_cast<double>(sizes_.copy_bytes) / copy;
  std::vector<uint16_t> weights = RandomBF16(sizes_.outputs * sizes_.inputs, 0.05f);
  auto packed = backend_.Pack({weights.data(), DType::kBF16, {sizes_.outputs, sizes_.inputs}});
  if (!packed.ok()) return packed.status();
  const std::vector<float> block = RandomFloats(1 << 16, 1.0f);
  const auto block_bytes = static_cast<int64_t>(block.size()) * SizeOf(DType::kF32);
  auto x = FilledBuffer(backend_, sizes_.rows * sizes_.inputs * SizeOf(DType::kF32), block.data(),
                        block_bytes);
  if (!x.ok()) return x.status();
  auto out = backend_.Allocate(sizes_.rows * sizes_.outputs * SizeOf(DType::kF32));
  if (!out.ok()) return out.status();
  const TensorView x_view((*x)->data(), DType::kF32, {sizes_.rows, sizes_.inputs});
  const TensorView out_view((*out)->data(), DType::kF32, {sizes_.rows, sizes_.outputs});
  const double product =
      SecondsOf([&] { backend_.MatMul(out_view, x_view, **packed, /*add=*/false); });
  best.flops_per_second = 2.0 * static_cast<double>(sizes_.rows) *
                          static_cast<double>(sizes_.outputs * sizes_.inputs) / product;
  return best;
}

}  // namespace catserve

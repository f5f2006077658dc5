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

int64_t Parts(const PartCounts& counts) {
  return counts.replayed + counts.recorded + counts.first + counts.differed + counts.refused;
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

Timing DeviceClock::TimeOf(const std::function<void()>& work, const StepPart& part,
                           PartOf part_of) {
  const auto less_head_start = [&](int repeats, const StepPart& key) {
    const double alone = Time([] {});
    const double both = Time([&] {
      for (int i = 0; i < repeats; ++i) {
        if (i == 0 || part_of == PartOf::kCall) backend_.BeginPart(key);
        work();
        if (part_of == PartOf::kCall) backend_.Submit();
      }
      backend_.BeginPart({});
    });
    return std::max(both - alone, 1e-9) / repeats;
  };
  less_head_start(1, {});  // loads kernels, chooses algorithms
  const double once = less_head_start(1, {});
  const int repeats =
      static_cast<int>(std::clamp(kSampleSeconds / once, 1.0, static_cast<double>(kRepeatsMax)));
  const bool recurs = part.kind != PartKind::kOther;
  // The first is launched as it is, the second recorded.
  for (int i = 0; i < 2 && recurs; ++i) less_head_start(repeats, part);
  const int64_t parts_before = Parts(backend_.part_counts());
  const int64_t replayed_before = backend_.part_counts().replayed;
  std::vector<double> tries(sizes_.tries);
  for (double& seconds : tries) seconds = less_head_start(repeats, part);
  Timing timing{Median(std::move(tries)), std::nullopt};
  if (const int64_t parts = Parts(backend_.part_counts()) - parts_before; parts > 0) {
    const int64_t replayed = backend_.part_counts().replayed - replayed_before;
    timing.replayed = static_cast<double>(replayed) / static_cast<double>(parts);
  }
  return timing;
}

absl::StatusOr<double> DeviceClock::ProductRate(WeightFormat format) {
  std::vector<uint16_t> weights = RandomBF16(sizes_.outputs * sizes_.inputs, 0.05f);
  auto packed =
      backend_.Pack({weights.data(), DType::kBF16, {sizes_.outputs, sizes_.inputs}}, format);
  if (!packed.ok()) return packed.status();
  const DType type = (*packed)->activations();
  const std::vector<float> floats = RandomFloats(1 << 16, 1.0f);
  const std::vector<uint16_t> narrow = RandomBF16(1 << 16, 1.0f);
  const bool wide = type == DType::kF32;
  const void* const block = wide ? static_cast<const void*>(floats.data()) : narrow.data();
  auto x =
      FilledBuffer(backend_, sizes_.rows * sizes_.inputs * SizeOf(type), block, SizeOf(type) << 16);
  if (!x.ok()) return x.status();
  auto out = backend_.Allocate(sizes_.rows * sizes_.outputs * SizeOf(type));
  if (!out.ok()) return out.status();
  const TensorView x_view((*x)->data(), type, {sizes_.rows, sizes_.inputs});
  const TensorView out_view((*out)->data(), type, {sizes_.rows, sizes_.outputs});
  const double product =
      SecondsOf([&] { backend_.MatMul(out_view, x_view, **packed, /*add=*/false); });
  return 2.0 * static_cast<double>(sizes_.rows) *
         static_cast<double>(sizes_.outputs * sizes_.inputs) / product;
}

absl::StatusOr<Ceilings> DeviceClock::MeasureCeilings() {
  Ceilings best;
  char* const data = static_cast<char*>(memory_->data());
  const double copy =
      SecondsOf([&] { backend_.Copy(data + sizes_.copy_bytes, data, sizes_.copy_bytes); });
  best.read_bytes_per_second = 2.0 * static_cast<double>(sizes_.copy_bytes) / copy;
  const absl::StatusOr<double> rate = ProductRate(WeightFormat::kAsIs);
  if (!rate.ok()) return rate.status();
  best.flops_per_second = *rate;
  const absl::StatusOr<double> e4m3 = ProductRate(WeightFormat::kE4M3);
  if (!e4m3.ok() && !absl::IsUnimplemented(e4m3.status())) return e4m3.status();
  best.e4m3_ops_per_second = e4m3.value_or(0);
  return best;
}

}  // namespace catserve

#include "kernels/cpu/int4_matrix.h"

#include <algorithm>
#include <cmath>

#include "kernels/bfloat16.h"
#include "kernels/cpu/math.h"
#include "kernels/kv_page.h"
#include "kernels/shape_checks.h"

namespace catserve::cpu {
namespace {

constexpr float kMost = 15;
constexpr uint16_t kNaN = 0x7fc0;  // BF16

// Writes the `count` weights of one output's group, by the rule of WeightFormat::kInt4.
void FillGroup(Int4Group& group, int64_t lane, const float* weights, int64_t count) {
  const auto [low, high] = std::minmax_element(weights, weights + count);
  const bool finite =
      std::all_of(weights, weights + count, [](float w) { return std::isfinite(w); });
  group.minima[lane] = BF16FromFloat(*low);
  const float minimum = FloatFromBF16(group.minima[lane]);
  const float range = std::max(*high - minimum, 0.0f);
  // One weight that is no number makes the output none, as it would in floats; so do weights too
  // far apart for their distance to be one.
  group.scales[lane] = finite && std::isfinite(range) ? KvScaleBits(range, kMost) : kNaN;
  const float scale = FloatFromBF16(group.scales[lane]);
  if (!(scale > 0)) return;  // the nibbles are all zeros
  for (int64_t k = 0; k < count; ++k) {
    const float held = std::clamp(std::nearbyint((weights[k] - minimum) / scale), 0.0f, kMost);
    const Nibble at = NibbleOf(lane, k);
    group.nibbles[at.byte] |= static_cast<uint8_t>(static_cast<int>(held) << at.shift);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Int4Matrix>> Int4Matrix::Create(const TensorView& host,
                                                               ThreadPool& pool) {
  CheckWeights(host);
  const int64_t in = host.shape[1];
  std::unique_ptr<Int4Matrix> matrix(new Int4Matrix(host.shape[0], in));
  if (auto status = matrix->Allocate(); !status.ok()) return status;
  matrix->ForOutputs(pool, [&](int64_t output, Int4Group* groups, int64_t lane) {
    for (int64_t group = 0; group < matrix->groups(); ++group) {
      const int64_t begin = group * kGroupInputs;
      const int64_t count = std::min(kGroupInputs, in - begin);
      float weights[kGroupInputs];
      for (int64_t k = 0; k < count; ++k) {
        weights[k] = LoadFloat(host.data, host.dtype, output * host.row_stride + begin + k);
      }
      FillGroup(groups[group], lane, weights, count);
    }
  });
  return matrix;
}

}  // namespace catserve::cpu

#include "kernels/cpu/int4_matrix.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/bfloat16.h"
#include "kernels/check.h"
#include "kernels/cpu/hold_int8.h"
#include "kernels/cpu/math.h"
#include "kernels/kv_page.h"

namespace catserve::cpu {
namespace {

constexpr int64_t kFillPieces = 1024;  // at most; a piece is some panels
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
  CATSERVE_CHECK(host.rank == 2 && host.dtype != DType::kI32 && host.dtype != DType::kI8)
      << "a weight matrix is [out, in] of a float type, not rank " << host.rank << " "
      << Name(host.dtype);
  std::unique_ptr<Int4Matrix> matrix(new Int4Matrix(host.shape[0], host.shape[1]));
  int64_t bytes = 0;
  if (__builtin_mul_overflow(matrix->panels(), matrix->groups(), &bytes) ||
      __builtin_mul_overflow(bytes, int64_t{sizeof(Int4Group)}, &bytes)) {
    return absl::ResourceExhaustedError(absl::StrCat("a matrix of [", host.shape[0], ", ",
                                                     host.shape[1], "] does not fit any memory"));
  }
  auto buffer = HostBuffer::Create(bytes);
  if (!buffer.ok()) return buffer.status();
  matrix->buffer_ = std::move(*buffer);
  const int pieces = static_cast<int>(std::clamp<int64_t>(matrix->panels(), 1, kFillPieces));
  pool.Run(pieces, pool.threads(), [&](int piece, int) {
    const Range share = Share(matrix->panels(), piece, pieces);
    for (int64_t panel = share.begin; panel < share.end; ++panel) matrix->Fill(host, panel);
  });
  return matrix;
}

void Int4Matrix::Fill(const TensorView& host, int64_t panel) {
  auto* const to = const_cast<Int4Group*>(this->panel(panel));
  const int64_t first = panel * kPanel;
  for (int64_t lane = 0; lane < std::min(kPanel, out_ - first); ++lane) {
    for (int64_t group = 0; group < groups(); ++group) {
      const int64_t begin = group * kGroupInputs;
      const int64_t count = std::min(kGroupInputs, in_ - begin);
      float weights[kGroupInputs];
      for (int64_t k = 0; k < count; ++k) {
        weights[k] = LoadFloat(host.data, host.dtype, (first + lane) * host.row_stride + begin + k);
      }
      FillGroup(to[group], lane, weights, count);
    }
  }
}

void HoldInputs(const Ops& ops, Int8Group* to, const float* x, int64_t in) {
  for (int64_t begin = 0; begin < in; begin += kGroupInputs, ++to) {
    const int64_t count = std::min(kGroupInputs, in - begin);
    std::fill(to->numbers + count, to->numbers + kGroupInputs, int8_t{0});
    to->scale = FloatFromBF16(HoldInt8(ops, to->numbers, x + begin, count));
    int32_t sum = 0;
    for (const int8_t number : to->numbers) sum += number;
    to->sum = to->scale * static_cast<float>(sum);
  }
}

}  // namespace catserve::cpu

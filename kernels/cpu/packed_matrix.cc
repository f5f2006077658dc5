#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/math.h"
#include "kernels/shape_checks.h"

namespace catserve::cpu {
namespace {

constexpr int64_t kFillPieces = 1024;  // at most; a piece is some panels

}  // namespace

absl::StatusOr<std::unique_ptr<PackedMatrix>> PackedMatrix::Create(const TensorView& host,
                                                                   ThreadPool& pool) {
  CheckWeights(host);
  const int64_t out = host.shape[0];
  const int64_t in = host.shape[1];
  const DType dtype = host.dtype == DType::kBF16 ? DType::kBF16 : DType::kF32;
  std::unique_ptr<PackedMatrix> matrix(new PackedMatrix(out, in, dtype));
  int64_t bytes = 0;
  if (__builtin_mul_overflow(matrix->panels() * kPanel, matrix->panel_lines(), &bytes) ||
      __builtin_mul_overflow(bytes, 4, &bytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a matrix of [", out, ", ", in, "] does not fit any memory"));
  }
  auto buffer = HostBuffer::Create(bytes);
  if (!buffer.ok()) return buffer.status();
  matrix->buffer_ = std::move(*buffer);
  const int pieces = static_cast<int>(std::clamp<int64_t>(matrix->panels(), 1, kFillPieces));
  pool.Run(pieces, pool.threads(), [&](int piece, int) {
    const Range share = Share(matrix->panels(), piece, pieces);
    for (int64_t panel = share.begin; panel < share.end; ++panel) {
      dtype == DType::kBF16 ? matrix->FillPairs(host, panel) : matrix->Fill(host, panel);
    }
  });
  return matrix;
}

void PackedMatrix::Fill(const TensorView& host, int64_t panel) {
  auto* const to = static_cast<float*>(const_cast<void*>(this->panel(panel)));
  const int64_t first = panel * kPanel;
  const int64_t count = std::min(kPanel, out_ - first);
  for (int64_t lane = 0; lane < count; ++lane) {
    const void* const row =
        host.row<const char>(0) + (first + lane) * host.row_stride * SizeOf(host.dtype);
    for (int64_t k = 0; k < in_; ++k) to[k * kPanel + lane] = LoadFloat(row, host.dtype, k);
  }
}

void PackedMatrix::FillPairs(const TensorView& host, int64_t panel) {
  auto* const to = static_cast<uint32_t*>(const_cast<void*>(this->panel(panel)));
  const auto held = [](uint16_t bits) {
    return static_cast<uint16_t>((bits & 0x7f80u) == 0 ? bits & 0x8000u : bits);  // no subnormals
  };
  const int64_t first = panel * kPanel;
  const int64_t count = std::min(kPanel, out_ - first);
  for (int64_t lane = 0; lane < count; ++lane) {
    const uint16_t* const row = host.row<const uint16_t>(first + lane);
    for (int64_t k = 0; k < in_; k += 2) {
      const uint16_t latter = k + 1 < in_ ? row[k + 1] : uint16_t{0};
      to[k / 2 * kPanel + lane] = PairWord(held(row[k]), held(latter));
    }
  }
}

}  // namespace catserve::cpu

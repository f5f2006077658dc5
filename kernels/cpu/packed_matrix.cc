#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/bfloat16.h"
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
  if (__builtin_mul_overflow(matrix->panels() * kPanel, in, &bytes) ||
      __builtin_mul_overflow(bytes, SizeOf(dtype), &bytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a matrix of [", out, ", ", in, "] does not fit any memory"));
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

void PackedMatrix::Fill(const TensorView& host, int64_t panel) {
  void* to = const_cast<void*>(this->panel(panel));
  const int64_t first = panel * kPanel;
  const int64_t count = std::min(kPanel, out_ - first);
  for (int64_t lane = 0; lane < count; ++lane) {
    const uint16_t* row16 = host.row<const uint16_t>(first + lane);
    const float* row32 = host.row<const float>(first + lane);
    for (int64_t k = 0; k < in_; ++k) {
      const int64_t at = k * kPanel + PanelIndex(dtype_, lane);
      if (dtype_ == DType::kBF16) {
        static_cast<uint16_t*>(to)[at] = row16[k];
      } else {
        static_cast<float*>(to)[at] = host.dtype == DType::kF16 ? FloatFromF16(row16[k]) : row32[k];
      }
    }
  }
}

}  // namespace catserve::cpu

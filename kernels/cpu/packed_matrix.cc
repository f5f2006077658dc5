#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/bfloat16.h"
#include "kernels/check.h"
#include "kernels/cpu/math.h"
#include "kernels/int8_weights.h"

namespace catserve::cpu {
namespace {

constexpr int64_t kFillPieces = 1024;  // at most; a piece is some panels

}  // namespace

absl::StatusOr<std::unique_ptr<PackedMatrix>> PackedMatrix::Create(const TensorView& host,
                                                                   WeightFormat format,
                                                                   ThreadPool& pool) {
  CATSERVE_CHECK(host.rank == 2 && host.dtype != DType::kI32 && host.dtype != DType::kI8)
      << "a weight matrix is [out, in] of a float type, not rank " << host.rank << " "
      << Name(host.dtype);
  const int64_t out = host.shape[0];
  const int64_t in = host.shape[1];
  DType dtype = host.dtype == DType::kBF16 ? DType::kBF16 : DType::kF32;
  if (format == WeightFormat::kInt8) dtype = DType::kI8;
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
  if (dtype == DType::kI8) matrix->scales_.resize(matrix->panels() * kPanel);
  const int pieces = static_cast<int>(std::clamp<int64_t>(matrix->panels(), 1, kFillPieces));
  pool.Run(pieces, pool.threads(), [&](int piece, int) {
    const Range share = Share(matrix->panels(), piece, pieces);
    for (int64_t panel = share.begin; panel < share.end; ++panel) {
      dtype == DType::kI8 ? matrix->Quantize(host, panel) : matrix->Fill(host, panel);
    }
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
      const int64_t at = k * kPanel + lane;
      if (dtype_ == DType::kBF16) {
        static_cast<uint16_t*>(to)[at] = row16[k];
      } else {
        static_cast<float*>(to)[at] = host.dtype == DType::kF16 ? FloatFromF16(row16[k]) : row32[k];
      }
    }
  }
}

void PackedMatrix::Quantize(const TensorView& host, int64_t panel) {
  auto* const to = static_cast<int8_t*>(const_cast<void*>(this->panel(panel)));
  const int64_t first = panel * kPanel;
  const int64_t count = std::min(kPanel, out_ - first);
  for (int64_t lane = 0; lane < count; ++lane) {
    const auto weight = [&](int64_t k) {
      return LoadFloat(host.data, host.dtype, (first + lane) * host.row_stride + k);
    };
    const float scale = Int8WeightScale(in_, weight);
    scales_[first + lane] = scale;
    for (int64_t k = 0; k < in_; ++k) to[k * kPanel + lane] = Int8Weight(weight(k), scale);
  }
}

}  // namespace catserve::cpu

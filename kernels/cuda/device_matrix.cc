#include "kernels/cuda/device_matrix.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/bfloat16.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/operations.h"
#include "kernels/int8_weights.h"
#include "kernels/shape_checks.h"

namespace catserve::cuda {
namespace {

constexpr int64_t kRowAlignment = 16;             // bytes: what the kernels load at once
constexpr int64_t kPackBytes = int64_t{1} << 20;  // of rows that go to the device together

float LoadFloat(const TensorView& host, int64_t row, int64_t k) {
  if (host.dtype == DType::kF32) return host.row<const float>(row)[k];
  const uint16_t bits = host.row<const uint16_t>(row)[k];
  return host.dtype == DType::kBF16 ? FloatFromBF16(bits) : FloatFromF16(bits);
}

// One output's weights as whole numbers; returns their scale (WeightFormat::kInt8).
float Quantize(int8_t* to, const TensorView& host, int64_t row) {
  const auto weight = [&](int64_t k) { return LoadFloat(host, row, k); };
  const float scale = Int8WeightScale(host.shape[1], weight);
  for (int64_t k = 0; k < host.shape[1]; ++k) to[k] = Int8Weight(weight(k), scale);
  return scale;
}

// Of all rows: more than a kernel takes at once.
MatVecArgs ArgsOf(const TensorView& out, const TensorView& x, const DeviceMatrix& w, bool add) {
  return {.out = out.data,
          .x = x.data,
          .w = w.data(),
          .scales = w.scales(),
          .out_stride = out.row_stride,
          .x_stride = x.row_stride,
          .w_stride = w.stride(),
          .rows = static_cast<int32_t>(x.rows()),
          .in = static_cast<int32_t>(w.in_features()),
          .out_features = static_cast<int32_t>(w.out_features()),
          .narrow = out.dtype != DType::kF32,
          .add = add};
}

void LaunchFewRows(const MatVecArgs& all, const MatVecTypes& types, Stream stream) {
  const int64_t x_row = all.x_stride * SizeOf(types.x);
  const int64_t out_row = all.out_stride * SizeOf(all.narrow ? types.x : DType::kF32);
  for (int32_t first = 0; first < all.rows; first += kMatVecRowsMax) {
    MatVecArgs args = all;
    args.out = static_cast<std::byte*>(all.out) + first * out_row;
    args.x = static_cast<const std::byte*>(all.x) + first * x_row;
    args.rows = std::min(kMatVecRowsMax, all.rows - first);
    LaunchMatVec(args, types, stream);
  }
}

// By the library, or by our kernel where it has no way. few: the same product.
void LaunchProduct(MatMulLibrary* library, const Product& product, const MatVecArgs& few,
                   const MatVecTypes& types, Stream stream) {
  if (!library->Multiply(product)) LaunchFewRows(few, types, stream);
}

// x, or its copy in the type of the weights.
Product ProductOf(DeviceContext& context, const TensorView& out, const TensorView& x,
                  const DeviceMatrix& w) {
  Product product{.m = w.out_features(),
                  .n = x.rows(),
                  .k = w.in_features(),
                  .type = w.dtype(),
                  .a = w.data(),
                  .lda = w.stride(),
                  .b = x.data,
                  .ldb = x.row_stride,
                  .d = out.data,
                  .ldd = out.row_stride,
                  .d_type = out.dtype};
  if (x.dtype == w.dtype()) return product;
  const NarrowRowsArgs args{.out = context.scratch->Take<uint16_t>(x.rows() * w.stride()),
                            .x = x.row<const float>(0),
                            .out_stride = w.stride(),
                            .x_stride = x.row_stride,
                            .rows = static_cast<int32_t>(x.rows()),
                            .width = static_cast<int32_t>(w.in_features())};
  context.work->Do<LaunchNarrowRows>(args, w.dtype());
  product.b = args.out;
  product.ldb = args.out_stride;
  return product;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceMatrix>> DeviceMatrix::Create(const TensorView& host,
                                                                   WeightFormat format,
                                                                   DeviceContext& context) {
  CheckWeights(host);
  if (format == WeightFormat::kInt4) {
    return absl::UnimplementedError(
        "the cuda backend has no weights of 4 bits; hold them with 8 or 16");
  }
  std::unique_ptr<DeviceMatrix> matrix(new DeviceMatrix);
  matrix->out_ = host.shape[0];
  matrix->in_ = host.shape[1];
  matrix->dtype_ = format == WeightFormat::kInt8 ? DType::kI8 : host.dtype;
  const int64_t size = SizeOf(matrix->dtype_);
  int64_t row_bytes = 0;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(matrix->in_, size, &row_bytes) ||
      __builtin_add_overflow(row_bytes, kRowAlignment, &bytes) ||
      __builtin_mul_overflow(DivideUp(row_bytes, kRowAlignment) * kRowAlignment, matrix->out_,
                             &bytes) ||
      matrix->in_ > INT32_MAX || matrix->out_ > INT32_MAX) {
    return absl::ResourceExhaustedError(absl::StrCat("a matrix of [", matrix->out_, ", ",
                                                     matrix->in_, "] does not fit any memory"));
  }
  matrix->stride_ = DivideUp(row_bytes, kRowAlignment) * kRowAlignment / size;
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> weights = DeviceBuffer::Create(context, bytes);
  if (!weights.ok()) return weights.status();
  matrix->weights_ = *std::move(weights);

  const bool int8 = matrix->dtype_ == DType::kI8;
  const int64_t stride_bytes = matrix->stride_ * size;
  const int64_t rows_max = std::max<int64_t>(1, kPackBytes / std::max<int64_t>(1, stride_bytes));
  std::vector<float> scales;
  std::vector<std::byte> rows;
  for (int64_t i = 0; i < matrix->out_; ++i) {
    rows.resize(rows.size() + static_cast<size_t>(stride_bytes));  // zeros
    std::byte* const row = rows.data() + rows.size() - stride_bytes;
    if (int8) {
      scales.push_back(Quantize(reinterpret_cast<int8_t*>(row), host, i));
    } else {
      const char* from = static_cast<const char*>(host.data) + i * host.row_stride * size;
      std::memcpy(row, from, static_cast<size_t>(row_bytes));
    }
    const int64_t first = i / rows_max * rows_max;
    if (i + 1 < matrix->out_ && i + 1 < first + rows_max) continue;
    context.work->CopyIn(static_cast<char*>(matrix->weights_->data()) + first * stride_bytes,
                         rows.data(), std::ssize(rows));
    rows.clear();
  }
  if (!int8) return matrix;
  const int64_t scale_bytes = matrix->out_ * SizeOf(DType::kF32);
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> buffer = DeviceBuffer::Create(context, scale_bytes);
  if (!buffer.ok()) return buffer.status();
  matrix->scales_ = *std::move(buffer);
  context.work->CopyIn(matrix->scales_->data(), scales.data(), scale_bytes);
  return matrix;
}

void Multiply(DeviceContext& context, const TensorView& out, const TensorView& x,
              const DeviceMatrix& w, bool add) {
  const MatVecTypes types{x.dtype, w.dtype()};
  // Nobody's library multiplies whole numbers by floats: I8 is read again for every eight rows.
  if (x.rows() <= kMatVecRowsMax || w.dtype() == DType::kI8) {
    context.work->Do<LaunchFewRows>(ArgsOf(out, x, w, add), types);
    return;
  }
  const bool narrows = x.dtype != w.dtype();
  const int64_t rows_max =
      narrows ? context.scratch->Fits(w.stride() * SizeOf(w.dtype()), 1) : x.rows();
  for (int64_t first = 0; first < x.rows(); first += rows_max) {
    const int64_t rows = std::min(rows_max, x.rows() - first);
    context.scratch->Begin();
    const TensorView part = out.Rows(first, rows);
    Product product = ProductOf(context, part, x.Rows(first, rows), w);
    product.add = add;
    context.work->Do<LaunchProduct>(context.products.get(), product,
                                    ArgsOf(part, x.Rows(first, rows), w, add), types);
  }
}

}  // namespace catserve::cuda

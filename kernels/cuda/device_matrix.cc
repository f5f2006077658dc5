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

// One output's weights with 8 bits; returns their scale (WeightFormat::kInt8, kE4M3).
float Quantize(std::byte* to, DType type, const TensorView& host, int64_t row) {
  const auto weight = [&](int64_t k) { return LoadFloat(host, row, k); };
  const bool float8 = type == DType::kE4M3;
  const float scale = WeightScale(host.shape[1], weight, float8 ? kE4M3Max : kInt8WeightMost);
  for (int64_t k = 0; k < host.shape[1]; ++k) {
    to[k] = static_cast<std::byte>(float8 ? E4M3Weight(weight(k), scale)
                                          : static_cast<uint8_t>(Int8Weight(weight(k), scale)));
  }
  return scale;
}

// The type that the format holds numbers of the host's in. Errors: UNIMPLEMENTED.
absl::StatusOr<DType> TypeOf(WeightFormat format, DType host, const DeviceFacts& facts) {
  constexpr int kHopper = 90;  // the one whose tensor cores take rows and outputs with scales
  if (format == WeightFormat::kAsIs) return host;
  if (format == WeightFormat::kInt8) return DType::kI8;
  if (format == WeightFormat::kE4M3 && facts.compute_capability == kHopper) return DType::kE4M3;
  if (format == WeightFormat::kInt4) {
    return absl::UnimplementedError(
        "the cuda backend has no weights of 4 bits; hold them with 8 or 16");
  }
  return absl::UnimplementedError(
      absl::StrCat("weights of F8_E4M3 need a GPU of compute capability 9.0; ", facts.name, " has ",
                   facts.compute_capability / 10, ".", facts.compute_capability % 10,
                   ": hold them as I8 or with 16 bits"));
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

// The rows of x with 16 bits, in scratch memory.
TensorView Narrowed(DeviceContext& context, const TensorView& x, DType type) {
  const int64_t stride = DivideUp(x.shape[1] * SizeOf(type), kRowAlignment) * kRowAlignment / 2;
  TensorView narrow(context.scratch->Take<uint16_t>(x.rows() * stride), type,
                    {x.rows(), x.shape[1]});
  narrow.row_stride = stride;
  const NarrowRowsArgs args{.out = narrow.data,
                            .x = x.row<const float>(0),
                            .out_stride = stride,
                            .x_stride = x.row_stride,
                            .rows = static_cast<int32_t>(x.rows()),
                            .width = static_cast<int32_t>(x.shape[1])};
  context.work->Do<LaunchNarrowRows>(args, type);
  return narrow;
}

// Puts the rows with 8 bits, as the library takes them, into scratch memory.
void Quantize(DeviceContext& context, const TensorView& x, const DeviceMatrix& w,
              Product& product) {
  const QuantizeRowsArgs args{.out = context.scratch->Take<uint8_t>(x.rows() * w.stride()),
                              .scales = context.scratch->Take<float>(x.rows()),
                              .x = x.data,
                              .type = x.dtype,
                              .out_stride = w.stride(),
                              .x_stride = x.row_stride,
                              .rows = static_cast<int32_t>(x.rows()),
                              .width = static_cast<int32_t>(w.in_features())};
  context.work->Do<LaunchQuantizeRows>(args);
  product.k = w.stride();  // a multiple of 16, as the library wants it: both end with zeros
  product.b = args.out;
  product.ldb = args.out_stride;
  product.a_scales = w.scales();
  product.b_scales = args.scales;
}

// REQUIRES: x of w.activations().
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
  if (w.dtype() == DType::kE4M3) Quantize(context, x, w, product);
  return product;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceMatrix>> DeviceMatrix::Create(const TensorView& host,
                                                                   WeightFormat format,
                                                                   DeviceContext& context) {
  CheckWeights(host);
  const absl::StatusOr<DType> type = TypeOf(format, host.dtype, context.runtime->facts());
  if (!type.ok()) return type.status();
  std::unique_ptr<DeviceMatrix> matrix(new DeviceMatrix);
  matrix->out_ = host.shape[0];
  matrix->in_ = host.shape[1];
  matrix->dtype_ = *type;
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

  const bool scaled = size == 1;
  const int64_t stride_bytes = matrix->stride_ * size;
  const int64_t rows_max = std::max<int64_t>(1, kPackBytes / std::max<int64_t>(1, stride_bytes));
  std::vector<float> scales;
  std::vector<std::byte> rows;
  for (int64_t i = 0; i < matrix->out_; ++i) {
    rows.resize(rows.size() + static_cast<size_t>(stride_bytes));  // zeros
    std::byte* const row = rows.data() + rows.size() - stride_bytes;
    if (scaled) {
      scales.push_back(Quantize(row, matrix->dtype_, host, i));
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
  if (!scaled) return matrix;
  const int64_t scale_bytes = matrix->out_ * SizeOf(DType::kF32);
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> buffer = DeviceBuffer::Create(context, scale_bytes);
  if (!buffer.ok()) return buffer.status();
  matrix->scales_ = *std::move(buffer);
  context.work->CopyIn(matrix->scales_->data(), scales.data(), scale_bytes);
  return matrix;
}

void Multiply(DeviceContext& context, const TensorView& out, const TensorView& x,
              const DeviceMatrix& w, bool add) {
  // Nobody's library multiplies whole numbers by floats: I8 is read again for every eight rows. Our
  // kernel takes no F32 by E4M3: it becomes BF16 on its way.
  const bool e4m3 = w.dtype() == DType::kE4M3;
  const bool few = x.rows() <= kMatVecRowsMax && !(e4m3 && x.dtype == DType::kF32);
  if (few || w.dtype() == DType::kI8) {
    context.work->Do<LaunchFewRows>(ArgsOf(out, x, w, add), MatVecTypes{x.dtype, w.dtype()});
    return;
  }
  const bool narrows = x.dtype != w.activations();
  const int64_t row_bytes = w.stride() * ((narrows ? 2 : 0) + (e4m3 ? 1 : 0)) + kRowAlignment;
  const int64_t rows_max = narrows || e4m3 ? context.scratch->Fits(row_bytes, 3) : x.rows();
  for (int64_t first = 0; first < x.rows(); first += rows_max) {
    const int64_t rows = std::min(rows_max, x.rows() - first);
    context.scratch->Begin();
    const TensorView part = out.Rows(first, rows);
    TensorView given = x.Rows(first, rows);
    if (narrows) given = Narrowed(context, given, w.activations());
    Product product = ProductOf(context, part, given, w);
    product.add = add;
    context.work->Do<LaunchProduct>(context.products.get(), product, ArgsOf(part, given, w, add),
                                    MatVecTypes{given.dtype, w.dtype()});
  }
}

}  // namespace catserve::cuda

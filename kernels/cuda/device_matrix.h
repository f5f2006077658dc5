// A weight matrix on the device: row-major, rows 16-byte aligned and ending with zeros, F32, BF16,
// F16, I8 or E4M3.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/device_context.h"

namespace catserve::cuda {

class DeviceMatrix : public Matrix {
 public:
  // host: [out, in] F32, BF16 or F16, held as it is, as I8 or, on devices from compute capability
  // 9.0 on, as E4M3. Errors: RESOURCE_EXHAUSTED, UNIMPLEMENTED for other formats.
  static absl::StatusOr<std::unique_ptr<DeviceMatrix>> Create(const TensorView& host,
                                                              WeightFormat format,
                                                              DeviceContext& context);

  int64_t out_features() const override { return out_; }
  int64_t in_features() const override { return in_; }
  int64_t bytes() const override { return weights_->bytes() + (scales_ ? scales_->bytes() : 0); }

  // Whole numbers meet floats.
  DType activations() const override {
    if (dtype_ == DType::kE4M3) return DType::kBF16;
    return dtype_ == DType::kI8 ? DType::kF32 : dtype_;
  }

  DType dtype() const { return dtype_; }
  int64_t stride() const { return stride_; }  // elements from row to row
  const void* data() const { return std::as_const(*weights_).data(); }
  const float* scales() const {  // [out] of 8 bits, else null
    return scales_ ? static_cast<const float*>(std::as_const(*scales_).data()) : nullptr;
  }

 private:
  DeviceMatrix() = default;

  int64_t out_ = 0;
  int64_t in_ = 0;
  int64_t stride_ = 0;
  DType dtype_ = DType::kF32;
  std::unique_ptr<DeviceBuffer> weights_;
  std::unique_ptr<DeviceBuffer> scales_;
};

// out = x w^T, or out += x w^T. REQUIRES: shapes and types fit (Backend::MatMul).
void Multiply(DeviceContext& context, const TensorView& out, const TensorView& x,
              const DeviceMatrix& w, bool add);

}  // namespace catserve::cuda

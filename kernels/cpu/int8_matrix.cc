#include "kernels/cpu/int8_matrix.h"

#include "kernels/cpu/math.h"
#include "kernels/int8_weights.h"
#include "kernels/shape_checks.h"

namespace catserve::cpu {

absl::StatusOr<std::unique_ptr<Int8Matrix>> Int8Matrix::Create(const TensorView& host,
                                                               ThreadPool& pool) {
  CheckWeights(host);
  std::unique_ptr<Int8Matrix> matrix(new Int8Matrix(host.shape[0], host.shape[1]));
  if (auto status = matrix->Allocate(); !status.ok()) return status;
  matrix->scales_.resize(matrix->panels() * kPanel);
  matrix->ForOutputs(pool, [&](int64_t output, Int8Weights* groups, int64_t lane) {
    const auto weight = [&](int64_t k) {
      return LoadFloat(host.data, host.dtype, output * host.row_stride + k);
    };
    const float scale = Int8WeightScale(host.shape[1], weight);
    matrix->scales_[output] = scale;
    for (int64_t k = 0; k < host.shape[1]; ++k) {
      const int64_t input = k % kGroupInputs;
      groups[k / kGroupInputs].quads[input / 4][lane][input % 4] =
          HeldWeight(Int8Weight(weight(k), scale), input);
    }
  });
  return matrix;
}

}  // namespace catserve::cpu

// Launches of the product with few rows: by the type of the weights and the number of rows.
#include "kernels/cuda/mat_vec.cuh"

namespace catserve::cuda {
namespace {

template <typename W, int kRows>
void LaunchFor(const MatVecArgs& args, Stream stream) {
  Launch(MatVec<float, W, kRows>, MatVecShape<kRows>(args), args, stream);
}

template <typename W>
void LaunchFor(const MatVecArgs& args, Stream stream) {
  if (args.rows == 1) return LaunchFor<W, 1>(args, stream);
  if (args.rows == 2) return LaunchFor<W, 2>(args, stream);
  if (args.rows <= 4) return LaunchFor<W, 4>(args, stream);
  LaunchFor<W, kMatVecRowsMax>(args, stream);
}

}  // namespace

void LaunchMatVec(const MatVecArgs& args, DType weights, Stream stream) {
  if (args.rows == 0 || args.out_features == 0) return;
  if (weights == DType::kF32) return LaunchFor<float>(args, stream);
  if (weights == DType::kBF16) return LaunchFor<BF16>(args, stream);
  if (weights == DType::kF16) return LaunchFor<F16>(args, stream);
  LaunchFor<I8>(args, stream);
}

}  // namespace catserve::cuda

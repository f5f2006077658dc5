// Emulated: norm, rotation and writing into pages against the CPU's. Nothing here has run on a GPU.
#include "kernels/cuda/prepare_heads.cuh"

#include <cmath>

#include "tests/kernels/cuda/emulated.h"
#include "tests/kernels/cuda/tolerance.h"

namespace catserve::cuda {
namespace {

using ::catserve::testing::Make;
using testing::Narrow;
using testing::Poisoned;
using testing::Random;
using testing::RelativeError;
using testing::Tensor;
using testing::Widen;

constexpr int32_t kPages = 4, kPositions = 7;
constexpr std::array<int32_t, 5> kAt = {0, 6, 3, 3, 1};
constexpr std::array<int64_t, 5> kSlots = {17, -1, 63, 16, 0};

struct Shape {
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
  bool norms;
};

template <typename T, typename KV>
class Scene {
 public:
  explicit Scene(const Shape& shape)
      : shape_(shape),
        width_(int64_t{shape.heads + 2 * shape.kv_heads} * shape.head_dim),
        random_(shape.head_dim),
        before_(Narrow<T>(random_.Normal(static_cast<int64_t>(kAt.size()) * width_))),
        q_norm_(random_.Normal(shape.head_dim)),
        k_norm_(random_.Normal(shape.head_dim)),
        rotary_(random_.Normal(int64_t{kPositions} * shape.head_dim)) {
    // A value head of zeros has no largest element to scale by.
    std::fill(before_.end() - shape.head_dim, before_.end(), FromFloat<T>(0.0f));
  }

  void Run(uint32_t seed) {
    qkv_ = before_;
    pool_ = Poisoned<KV>(PoolSize());
    scales_ = Poisoned<BF16>(PoolSize() / shape_.head_dim);
    const PrepareHeadsArgs args{
        .qkv = qkv_.data(),
        .type = kTypeOf<T>,
        .stride = width_,
        .heads = shape_.heads,
        .kv = {pool_.data(), scales_.data(), shape_.kv_heads, shape_.head_dim},
        .q_norm = shape_.norms ? q_norm_.data() : nullptr,
        .k_norm = shape_.norms ? k_norm_.data() : nullptr,
        .rotary = rotary_.data(),
        .positions = kAt.data(),
        .slots = kSlots.data(),
        .norm_eps = 1e-5f};
    emulator::Launch(PrepareHeadsShape(args, static_cast<int>(kAt.size())), seed,
                     [&] { PrepareHeads<KV>(args); });
  }

  // Compares qkv and the pool with the CPU's, which starts from the same numbers.
  void Compare() {
    const auto cpu = Make("cpu-reference", 1);
    const auto rows = static_cast<int64_t>(kAt.size());
    const Tensor qkv(*cpu, {rows, width_}, Widen(before_));
    const Tensor pool(*cpu, {kPages, PoolSize() / kPages});
    HeadSpec spec{.heads = shape_.heads,
                  .kv_heads = shape_.kv_heads,
                  .head_dim = shape_.head_dim,
                  .norm_eps = 1e-5f};
    const Tensor q_norm(*cpu, {shape_.head_dim}, q_norm_);
    const Tensor k_norm(*cpu, {shape_.head_dim}, k_norm_);
    const Tensor rotary(*cpu, {kPositions, shape_.head_dim}, rotary_);
    if (shape_.norms) spec.q_norm = q_norm;
    if (shape_.norms) spec.k_norm = k_norm;
    spec.rotary = rotary;
    const KvLayer layer{pool.view().data, DType::kF32, kPages, shape_.kv_heads, shape_.head_dim};
    cpu->PrepareHeads(qkv, spec, kAt, &layer, kSlots);
    CompareHeads(Widen(qkv_), qkv.Read(), testing::kPlainRows.template Of<T>());
    CompareHeads(Decoded(), pool.Read(), kHasScale<KV> ? kHeadError : testing::kPlainRows.Of<KV>());
  }

 private:
  // Of a head stored with 8 bits, relative: the numbers' own rounding.
  static constexpr double kHeadError = std::is_same_v<KV, I8> ? 1.2e-2 : 4e-2;

  int64_t PoolSize() const {
    return int64_t{kPages} * shape_.kv_heads * 2 * kPageEntries * shape_.head_dim;
  }

  std::vector<float> Decoded() const {
    std::vector<float> decoded = Widen(pool_);
    if (!kHasScale<KV>) return decoded;
    for (size_t i = 0; i < decoded.size(); ++i) decoded[i] *= ToFloat(scales_[i / shape_.head_dim]);
    return decoded;
  }

  // Head by head; where the CPU wrote nothing (NaN), nothing may have been written.
  void CompareHeads(const std::vector<float>& got, const std::vector<float>& want,
                    double tolerance) {
    const int64_t dim = shape_.head_dim;
    for (size_t i = 0; i < want.size(); i += dim) {
      if (std::isnan(want[i])) {
        ASSERT_TRUE(std::isnan(got[i])) << "entry " << i / dim << " is nobody's";
        continue;
      }
      ASSERT_LT(RelativeError(std::span(got).subspan(i, dim), std::span(want).subspan(i, dim)),
                tolerance)
          << i / dim;
    }
  }

  Shape shape_;
  int64_t width_;
  Random random_;
  std::vector<T> before_;
  std::vector<T> qkv_;
  std::vector<float> q_norm_;
  std::vector<float> k_norm_;
  std::vector<float> rotary_;
  std::vector<KV> pool_;
  std::vector<BF16> scales_;
};

template <typename T, typename KV>
void Check(const Shape& shape) {
  Scene<T, KV> scene(shape);
  for (const uint32_t seed : {0u, 4u}) {
    scene.Run(seed);
    scene.Compare();
  }
}

TEST(EmulatedPrepareHeads, F32) { Check<float, float>({3, 3, 64, true}); }
TEST(EmulatedPrepareHeads, BF16WithoutNormsOfAnOddHeadSize) {
  Check<BF16, BF16>({4, 2, 200, false});
}
TEST(EmulatedPrepareHeads, F16IntoI8) { Check<F16, I8>({2, 1, 64, true}); }
TEST(EmulatedPrepareHeads, BF16IntoE4M3) { Check<BF16, E4M3>({2, 2, 128, true}); }

}  // namespace
}  // namespace catserve::cuda

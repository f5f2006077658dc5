// Every operation is passed on and counted for its part, with the floor of what it reads.
#include "bench/profiling_backend.h"

#include "kernels/backend_factory.h"
#include "tests/kernels/device.h"

namespace catserve::testing {
namespace {

constexpr Ceilings kMachine{
    .read_bytes_per_second = 1e9, .flops_per_second = 1e9, .int8_ops_per_second = 4e9};

TEST(ProfilingBackendTest, CountsProductsUnderTheNameOfTheirMatrix) {
  ProfilingBackend backend(MakeBackend("cpu", 1).value());
  HostMatrix host(DType::kF32, 16, 64, Random(1).Normal(16 * 64));
  const auto named = backend.Pack(host.view()).value();
  const auto other = backend.Pack(host.view()).value();
  backend.Name(*named, "decoder");
  Tensor x(backend, {1, 64}, Random(2).Normal(64));
  Tensor out(backend, {1, 16});
  backend.Take();
  backend.MatMul(out, x, *named, false);
  const std::vector<float> once = out.Read();
  backend.MatMul(out, x, *named, true);
  EXPECT_EQ(out.Read()[3], 2 * once[3]) << "the product itself is done";
  auto parts = backend.Take();
  EXPECT_GT(parts["decoder"].seconds, 0);
  EXPECT_DOUBLE_EQ(parts["decoder"].FloorSeconds(kMachine), 2 * 16 * 64 * 4 / 1e9) << "of bytes";
  EXPECT_FALSE(parts.contains("other products"));

  Tensor rows(backend, {10, 64}, Random(3).Normal(640));
  backend.MatMul(Tensor(backend, {10, 16}), rows, *other, false);
  parts = backend.Take();
  EXPECT_DOUBLE_EQ(parts["other products"].FloorSeconds(kMachine), 10 * 2 * 16 * 64 / 1e9)
      << "of sums";
  EXPECT_FALSE(parts.contains("decoder")) << "taken before";

  const auto int8 = backend.Pack(host.view(), WeightFormat::kInt8).value();
  backend.MatMul(Tensor(backend, {10, 16}), rows, *int8, false);
  EXPECT_DOUBLE_EQ(backend.Take()["other products"].FloorSeconds(kMachine), 10 * 2 * 16 * 64 / 4e9)
      << "of sums of whole numbers";
}

TEST(ProfilingBackendTest, ReadsAListOfPagesOnceForAllItsRows) {
  ProfilingBackend backend(MakeBackend("cpu", 1).value());
  const HeadSpec spec{.heads = 1, .kv_heads = 1, .head_dim = 8};
  Tensor pool(backend, {3, 1, 2, kKvPageEntries * 8}, std::vector<float>(3 * 2 * 16 * 8, 0.5f));
  const KvLayer kv{pool.view().data, DType::kF32, 3, 1, 8};
  Tensor q(backend, {2, 8}, Random(4).Normal(16));
  Tensor out(backend, {2, 8});
  const AttentionRow rows[] = {{0, 0, 0, 19}, {0, 0, 0, 20}};
  backend.Take();
  backend.PagedAttention(out, q, spec, kv, rows, std::vector<int32_t>{2, 0});
  EXPECT_EQ(out.Read(), std::vector<float>(16, 0.5f));
  EXPECT_DOUBLE_EQ(backend.Take()["attention"].FloorSeconds(kMachine), 20 * 2 * 8 * 4 / 1e9);
}

}  // namespace
}  // namespace catserve::testing

// The CPU promise: a row's bits depend on that row's inputs and on the entries it sees alone. They
// are the same in the scalar reference and its vectorised forms, with any number of rows and
// threads, and however the entries are split between prefix and pages.
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>

#include "tests/kernels/attention_scene.h"
#include "tests/kernels/bits.h"

namespace catserve {
namespace {

using testing::AttentionScene;
using testing::AttentionShape;
using testing::BitsTest;
using testing::HostMatrix;
using testing::kInfinity;
using testing::kNaN;
using testing::Make;
using testing::Random;
using testing::SameBits;
using testing::SpecOf;
using testing::Tensor;

INSTANTIATE_TEST_SUITE_P(Forms, BitsTest, ::testing::ValuesIn(testing::VectorisedForms()),
                         testing::BackendTestName);

TEST_P(BitsTest, RmsNorm) {
  for (const int64_t n : {1, 3, 8, 63, 1000}) {
    Random random(2);
    const std::vector<float> x = random.Normal(512 * n, 3.0f);
    const std::vector<float> weight = random.Normal(n);
    ExpectSameBitsEverywhere(
        [&](Backend& backend, int64_t rows) {
          Tensor out(backend, {rows, n});
          Tensor x_tensor(backend, {rows, n}, {x.begin(), x.begin() + rows * n});
          backend.RmsNorm(out, x_tensor, Tensor(backend, {n}, weight), 1e-5f);
          return out.Read();
        },
        {1, 2, 512});
  }
}

TEST_P(BitsTest, SiluGate) {
  for (const int64_t f : {1, 13, 512}) {
    std::vector<float> x = Random(3).Normal(512 * 2 * f, 30.0f);
    x[0] = kInfinity;
    x[2 * f] = -kInfinity;
    ExpectSameBitsEverywhere(
        [&](Backend& backend, int64_t rows) {
          Tensor out(backend, {rows, f});
          Tensor x_tensor(backend, {rows, 2 * f}, {x.begin(), x.begin() + rows * 2 * f});
          backend.SiluGate(out, x_tensor);
          std::vector<float> values = out.Read();
          for (float& value : values) value = std::isnan(value) ? -1e30f : value;  // any NaN is one
          return values;
        },
        {1, 2, 512});
  }
}

TEST_P(BitsTest, PrepareHeads) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
    for (const int32_t dim : {2, 6, 16, 62, 64}) {
      Random random(4);
      const int64_t width = 4 * dim;
      const std::vector<float> qkv = random.Normal(64 * width);
      const std::vector<float> tables = random.Normal(10 * dim);
      ExpectSameBitsEverywhere(
          [&](Backend& backend, int64_t rows) {
            Tensor table(backend, {10, dim}, tables);
            Tensor q(backend, {rows, width}, {qkv.begin(), qkv.begin() + rows * width});
            Tensor pool(backend, dtype, {4, 2, 16 * dim});
            Tensor scales(backend, DType::kBF16, {4, 1, 2, 16});
            KvLayer kv{pool.view().data, dtype, 4, 1, dim};
            if (dtype == DType::kI8) kv.scales = static_cast<uint16_t*>(scales.view().data);
            HeadSpec spec{.heads = 2, .kv_heads = 1, .head_dim = dim, .norm_eps = 1e-5f};
            spec.q_norm = TensorView(table.view().data, DType::kF32, {dim});
            spec.k_norm = spec.q_norm;
            spec.rotary = table;
            std::vector<int32_t> positions;
            std::vector<int64_t> slots;
            for (int64_t i = 0; i < rows; ++i) {
              positions.push_back(static_cast<int32_t>(i % 10));
              slots.push_back(i);
            }
            backend.PrepareHeads(q, spec, positions, &kv, slots);
            // The row beside what it left in memory, read back by attending to that entry alone.
            Tensor seen(backend, {rows, 2 * dim});
            std::vector<AttentionRow> reads;
            std::vector<int32_t> pages;
            for (int64_t i = 0; i < rows; ++i) {
              pages.push_back(static_cast<int32_t>(i / 16));
              reads.push_back({0, 0, static_cast<int32_t>(i), static_cast<int32_t>(i % 16 + 1)});
            }
            backend.PagedAttention(seen, q.view().Columns(0, 2 * dim), spec, kv, reads, pages);
            std::vector<float> both;
            const std::vector<float> left = q.Read(), right = seen.Read();
            for (int64_t i = 0; i < rows; ++i) {
              both.insert(both.end(), left.begin() + i * width, left.begin() + (i + 1) * width);
              both.insert(both.end(), right.begin() + i * 2 * dim,
                          right.begin() + (i + 1) * 2 * dim);
            }
            return both;
          },
          {1, 2, 17, 64});
    }
  }
}

// Values are stored as they come: ties, overflow and NaN round as bfloat16.h says.
TEST_P(BitsTest, StoringAsBF16RoundsToNearestEven) {
  constexpr int32_t kDim = 250;
  std::vector<float> qkv(3 * kDim, 0.0f);
  for (uint32_t i = 0; i < kDim; ++i) {
    const uint32_t remainders[] = {0x7fff, 0x8000, 0x8001, 0, 0xffff};
    qkv[2 * kDim + i] = std::bit_cast<float>((0x3f80 + i / 5) << 16 | remainders[i % 5]);
  }
  qkv[2 * kDim] = -kInfinity;
  qkv[2 * kDim + 1] = std::bit_cast<float>(0x7f7fffffu);  // the largest finite
  qkv[2 * kDim + 2] = std::bit_cast<float>(0x7f800001u);  // a NaN in its lowest bit alone
  qkv[3 * kDim - 1] = std::bit_cast<float>(0x3f808000u);  // a tie in the last, short group
  for (const std::string& name : {std::string("cpu-reference"), GetParam()}) {
    const auto backend = Make(name, 1);
    Tensor row(*backend, {1, 3 * kDim}, qkv);
    Tensor pool(*backend, DType::kBF16, {1, 2, 16 * kDim});
    const KvLayer kv{pool.view().data, DType::kBF16, 1, 1, kDim};
    Tensor rotary(*backend, {1, kDim}, std::vector<float>(kDim, 1.0f));
    HeadSpec spec{.heads = 1, .kv_heads = 1, .head_dim = kDim};
    spec.rotary = rotary;
    const int32_t positions[] = {0};
    const int64_t slots[] = {3};
    backend->PrepareHeads(row, spec, positions, &kv, slots);
    const std::vector<uint16_t> stored = pool.ReadAs<uint16_t>();
    for (int32_t d = 0; d < kDim; ++d) {
      ASSERT_EQ(stored[(16 + 3) * kDim + d], BF16FromFloat(qkv[2 * kDim + d])) << name << ' ' << d;
    }
  }
}

// Row i of a prefill sees i + 1 entries, or fewer the later it comes, or none; behind a prefix of
// 37 or without one: as many rows as in one step, or one at a time.
TEST_P(BitsTest, PagedAttentionOfPrefillAndDecode) {
  constexpr int32_t kEntries = 192;
  for (const AttentionShape& shape :
       {AttentionShape{4, 2, 16, DType::kF32}, AttentionShape{4, 2, 16, DType::kBF16},
        AttentionShape{3, 1, 10, DType::kF32}, AttentionShape{3, 1, 10, DType::kBF16},
        AttentionShape{4, 2, 16, DType::kI8}, AttentionShape{2, 2, 8, DType::kI8},
        AttentionShape{3, 1, 10, DType::kI8}, AttentionShape{2, 2, 66, DType::kF32},
        AttentionShape{1, 1, 64, DType::kBF16}, AttentionShape{1, 1, 254, DType::kBF16},
        AttentionShape{4, 1, 256, DType::kI8}}) {
    const int64_t width = shape.heads * shape.head_dim;
    const std::vector<float> q = Random(5).Normal(kEntries * width, 2.0f);
    for (const int32_t prefix : {0, 37}) {
      ExpectSameBitsEverywhere(
          [&](Backend& backend, int64_t rows) {
            AttentionScene scene(backend, shape, kEntries, 6);
            const int32_t prefix_page = scene.Place(0, prefix);
            const int32_t page = scene.Place(prefix, kEntries - prefix);
            std::vector<AttentionRow> visible;
            for (int32_t i = 0; i < rows; ++i) {
              const int32_t seen = i / 4 % 8 == 5 ? 0 : i / 64 % 2 == 0 ? i + 1 : kEntries - i;
              visible.push_back({prefix_page, prefix, page, std::max(0, seen - prefix)});
            }
            Tensor out(backend, {rows, width});
            Tensor q_tensor(backend, {rows, width}, {q.begin(), q.begin() + rows * width});
            backend.PagedAttention(out, q_tensor, SpecOf(shape), scene.layer(), visible,
                                   scene.page_ids());
            return out.Read();
          },
          {1, 2, 3, 7, 8, 9, 64, 67, kEntries});
    }
  }
}

// A branch of Score reads its summaries as a prefix, Generate has them in its own pages.
TEST_P(BitsTest, PagedAttentionDependsOnTheLogicalOrderAlone) {
  for (const AttentionShape& shape :
       {AttentionShape{4, 2, 16, DType::kF32}, AttentionShape{2, 1, 6, DType::kBF16},
        AttentionShape{2, 2, 16, DType::kI8}, AttentionShape{2, 1, 6, DType::kI8}}) {
    for (const std::string& name : {std::string("cpu-reference"), GetParam()}) {
      const auto backend = Make(name, 2);
      const int32_t entries = 45;
      const int64_t width = shape.heads * shape.head_dim;
      Tensor q(*backend, {1, width}, Random(7).Normal(width, 2.0f));
      std::vector<float> whole;
      for (int32_t prefix = 0; prefix <= entries; ++prefix) {
        AttentionScene scene(*backend, shape, entries, 8);
        const int32_t prefix_page = scene.Place(0, prefix);
        const int32_t page = scene.Place(prefix, entries - prefix);
        const AttentionRow rows[] = {{prefix_page, prefix, page, entries - prefix}};
        Tensor out(*backend, {1, width});
        backend->PagedAttention(out, q, SpecOf(shape), scene.layer(), rows, scene.page_ids());
        if (prefix == 0) whole = out.Read();
        ASSERT_TRUE(SameBits(out.Read(), whole)) << name << " prefix " << prefix;
      }
    }
  }
}

// A pool of 9.2 GB of which only the touched pages exist: offsets beyond 2^31 elements must not
// wrap.
TEST_P(BitsTest, PagedAttentionAddressesLargePools) {
  constexpr int64_t kPages = 70'000;
  constexpr int32_t kDim = 64;
  constexpr size_t kBytes = kPages * 16 * 2 * kKvPageEntries * kDim * 4;
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const KvLayer kv{memory, DType::kF32, kPages, 16, kDim};
  for (const std::string& name : {std::string("cpu-reference"), GetParam()}) {
    const auto backend = Make(name, 2);
    const std::vector<float> qkv = Random(12).Normal(3 * 16 * kDim);
    HeadSpec spec{.heads = 16, .kv_heads = 16, .head_dim = kDim};
    Tensor rotary(*backend, {1, kDim}, std::vector<float>(kDim, 0.5f));
    spec.rotary = rotary;
    Tensor row(*backend, {1, 3 * 16 * kDim}, qkv);
    const int32_t positions[] = {0};
    const int64_t slots[] = {kPages * kKvPageEntries - 16};
    backend->PrepareHeads(row, spec, positions, &kv, slots);
    Tensor out(*backend, {1, 16 * kDim});
    const AttentionRow reads[] = {{0, 0, 0, 1}};
    const int32_t ids[] = {kPages - 1};
    backend->PagedAttention(out, row.view().Columns(0, 16 * kDim), spec, kv, reads, ids);
    EXPECT_TRUE(SameBits(out.Read(), {qkv.end() - 16 * kDim, qkv.end()})) << "its own value";
  }
  munmap(memory, kBytes);
}

TEST_P(BitsTest, BlockAttention) {
  for (const int32_t dim : {6, 16}) {
    const int64_t stride = 8 * dim, width = 4 * dim;
    const std::vector<float> qkv = Random(9).Normal(340 * stride, 2.0f);
    ExpectSameBitsEverywhere(
        [&](Backend& backend, int64_t rows) {
          std::vector<RowBlock> blocks;
          for (int32_t first = 0; first < rows; first += 10) blocks.push_back({first, 10});
          Tensor out(backend, {rows, width});
          Tensor q_tensor(backend, {rows, stride}, {qkv.begin(), qkv.begin() + rows * stride});
          backend.BlockAttention(out, q_tensor, {.heads = 4, .kv_heads = 2, .head_dim = dim},
                                 blocks);
          return out.Read();
        },
        {10, 20, 340});
  }
}

TEST_P(BitsTest, Gather) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    std::vector<float> values = Random(10).Normal(100 * 29, 100.0f);
    for (int i = 0; i < 29; ++i) values[i] = std::ldexp(values[i], -16 - i);  // subnormal halves
    values[30] = kInfinity;
    values[31] = kNaN;
    HostMatrix host(dtype, 100, 29, values);
    ExpectSameBitsEverywhere(
        [&](Backend& backend, int64_t rows) {
          const auto table = backend.Upload(host.view()).value();
          const TensorView tables[] = {TensorView(table->data(), dtype, {100, 29})};
          std::vector<GatherRow> gather;
          for (int32_t i = 0; i < rows; ++i) gather.push_back({0, i * 7 % 100, false});
          Tensor out(backend, {rows, 29});
          backend.Gather(out, tables, TensorView(), gather);
          return out.Read();
        },
        {1, 100});
  }
}

// Tokens, log-probabilities and the likeliest ids, flattened.
TEST_P(BitsTest, SampleAndScoreTokens) {
  for (const int32_t vocab : {1, 5, 8, 250, 4099}) {
    const int64_t rows_max = 40;
    std::vector<float> logits = Random(11).Normal(rows_max * vocab, 4.0f);
    logits[vocab / 2] = kNaN;
    logits[rows_max * vocab - 1] = kInfinity;
    ExpectSameBitsEverywhere(
        [&](Backend& backend, int64_t rows) {
          Tensor tensor(backend, {rows, vocab}, {logits.begin(), logits.begin() + rows * vocab});
          std::vector<SampleSpec> specs(rows, {.temperature = 1.2f, .seed = 3, .logprobs = 5});
          std::vector<int32_t> targets(rows), top_n(rows, 3);
          for (int64_t i = 0; i < rows; ++i) {
            specs[i].position = i;
            specs[i].temperature = i % 4 == 0 ? 0.0f : 0.3f * static_cast<float>(i % 4);
            specs[i].top_k = i % 3 == 0 ? 50 : 0;
            specs[i].top_p = i % 5 == 0 ? 0.9f : 1.0f;
            targets[i] = static_cast<int32_t>(i % vocab);
          }
          std::vector<TokenDraw> draws(rows), scores(rows);
          backend.Sample(draws, tensor, vocab, specs);
          backend.ScoreTokens(scores, tensor, vocab, targets, top_n);
          std::vector<float> flat;
          for (int64_t i = 0; i < rows; ++i) {
            for (const TokenDraw* draw : {&draws[i], &scores[i]}) {
              flat.push_back(static_cast<float>(draw->id));
              flat.push_back(draw->logprob);
              for (const auto& [id, logprob] : draw->top) {
                flat.push_back(static_cast<float>(id));
                flat.push_back(logprob);
              }
            }
          }
          return flat;
        },
        {1, 2, rows_max});
  }
}

}  // namespace
}  // namespace catserve

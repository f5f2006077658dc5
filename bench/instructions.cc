// Runs one hot operation of the CPU backend on fixed input and one thread, for
// tools/instruction_counts.py to count its instructions: instructions OPERATION. Without an
// operation it prints the backend and then their names.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/backend_factory.h"
#include "kernels/sampling.h"
#include "kernels/tensor.h"

// What callgrind counts: the calls of this function and no other work. Not inlined, and with a name
// that no compiler changes.
extern "C" __attribute__((noinline)) void CountedOperation(const std::function<void()>& work) {
  work();
}

namespace catserve {
namespace {

constexpr int32_t kHeads = 4;
constexpr int32_t kHeadDim = 64;
constexpr int64_t kWidth = int64_t{kHeads} * kHeadDim;
constexpr int64_t kEntries = 256;
constexpr int64_t kPages = kEntries / kKvPageEntries;

// A matrix of F32 on the heap, with the same numbers in every run.
struct Floats {
  Floats(int64_t rows, int64_t columns) : values(rows * columns), shape{rows, columns} {
    std::mt19937 engine(1);  // its numbers are the standard's, those of distributions are not
    for (float& value : values) value = static_cast<float>(engine()) * 0x1p-31f - 1.0f;
  }
  TensorView view() { return {values.data(), DType::kF32, {shape[0], shape[1]}}; }

  std::vector<float> values;
  int64_t shape[2];
};

// An operation with the inputs that it holds.
using Work = std::function<void()>;
using Make = std::function<Work(Backend&)>;

Work MatMul(Backend& backend, WeightFormat format, DType dtype, int64_t rows) {
  constexpr int64_t kOut = 256, kIn = 768;
  Floats host(kOut, kIn);  // as BF16: any bits do
  const TensorView view(host.values.data(), dtype, {kOut, kIn});
  const std::shared_ptr<Matrix> weights = backend.Pack(view, format).value();
  auto x = std::make_shared<Floats>(rows, kIn);
  auto out = std::make_shared<Floats>(rows, kOut);
  return [&backend, weights, x, out] {
    backend.MatMul(out->view(), x->view(), *weights, /*add=*/false);
  };
}

// Rows of queries, keys and values, and KV memory of one sequence.
struct Attention {
  Attention(Backend& backend, DType dtype, int64_t rows)
      : qkv(rows, 3 * kWidth),
        out(rows, kWidth),
        tables(kEntries, kHeadDim),
        data(backend.Allocate(kPages * 2 * kWidth * kKvPageEntries * SizeOf(dtype)).value()),
        scales(
            backend.Allocate(kPages * 2 * kHeads * kKvPageEntries * KvScaleBytes(dtype)).value()),
        kv{data->data(), dtype, kPages, kHeads, kHeadDim},
        spec{.heads = kHeads, .kv_heads = kHeads, .head_dim = kHeadDim, .norm_eps = 1e-5f},
        pages(kPages) {
    if (dtype == DType::kI8) kv.scales = static_cast<uint16_t*>(scales->data());
    spec.rotary = tables.view();
    std::iota(pages.begin(), pages.end(), 0);
  }

  Floats qkv;
  Floats out;
  Floats tables;
  std::unique_ptr<Buffer> data;
  std::unique_ptr<Buffer> scales;
  KvLayer kv;
  HeadSpec spec;
  std::vector<int32_t> pages;
};

// The last `rows` rows of a sequence.
Work PagedAttention(Backend& backend, DType dtype, int64_t rows) {
  auto state = std::make_shared<Attention>(backend, dtype, rows);
  std::vector<AttentionRow> sees;
  for (int64_t i = 0; i < rows; ++i) {
    sees.push_back({.entries = static_cast<int32_t>(kEntries - rows + 1 + i)});
  }
  return [&backend, state, sees] {
    backend.PagedAttention(state->out.view(), state->qkv.view().Columns(0, kWidth), state->spec,
                           state->kv, sees, state->pages);
  };
}

Work PrepareHeads(Backend& backend, DType dtype, int64_t rows) {
  auto state = std::make_shared<Attention>(backend, dtype, rows);
  std::vector<int32_t> positions(rows);
  std::vector<int64_t> slots(rows);
  std::iota(positions.begin(), positions.end(), 0);
  std::iota(slots.begin(), slots.end(), 0);
  return [&backend, state, positions, slots] {
    backend.PrepareHeads(state->qkv.view(), state->spec, positions, &state->kv, slots);
  };
}

Work BlockAttention(Backend& backend) {
  constexpr int32_t kRows = 18, kBlocks = 4;
  auto state = std::make_shared<Attention>(backend, DType::kF32, int64_t{kRows} * kBlocks);
  std::vector<RowBlock> blocks(kBlocks);
  for (int32_t i = 0; i < kBlocks; ++i) blocks[i] = {i * kRows, kRows};
  return [&backend, state, blocks] {
    backend.BlockAttention(state->out.view(), state->qkv.view(), state->spec, blocks);
  };
}

Work RmsNorm(Backend& backend) {
  auto x = std::make_shared<Floats>(16, 768);
  auto weight = std::make_shared<Floats>(1, 768);
  auto out = std::make_shared<Floats>(16, 768);
  return [&backend, x, weight, out] {
    const TensorView row(weight->values.data(), DType::kF32, {768});
    backend.RmsNorm(out->view(), x->view(), row, 1e-5f);
  };
}

Work SiluGate(Backend& backend) {
  auto gate_up = std::make_shared<Floats>(16, 2 * 2048);
  auto out = std::make_shared<Floats>(16, 2048);
  return [&backend, gate_up, out] { backend.SiluGate(out->view(), gate_up->view()); };
}

Work Sample(Backend& backend, const SampleSpec& spec) {
  constexpr int32_t kVocab = 32'000;
  auto logits = std::make_shared<Floats>(1, kVocab);
  for (float& z : logits->values) z *= 12.0f;
  return [&backend, logits, spec] {
    TokenDraw draw;
    backend.Sample({&draw, 1}, logits->view(), kVocab, {&spec, 1});
  };
}

std::map<std::string, Make> Operations() {
  std::map<std::string, Make> operations;
  struct Held {
    const char* name;
    WeightFormat format;
    DType dtype;
  };
  for (const Held& held : {Held{"F32", WeightFormat::kAsIs, DType::kF32},
                           Held{"BF16", WeightFormat::kAsIs, DType::kBF16},
                           Held{"I8", WeightFormat::kInt8, DType::kF32},
                           Held{"I4", WeightFormat::kInt4, DType::kF32}}) {
    for (const int64_t rows : {1, 16}) {
      operations[std::string("matmul_") + held.name + "_rows_" + std::to_string(rows)] =
          [held, rows](Backend& b) { return MatMul(b, held.format, held.dtype, rows); };
    }
  }
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
    const std::string name = Name(dtype);
    for (const int64_t rows : {1, 32}) {
      operations["attention_" + name + "_rows_" + std::to_string(rows)] = [=](Backend& b) {
        return PagedAttention(b, dtype, rows);
      };
    }
    operations["prepare_heads_" + name] = [=](Backend& b) { return PrepareHeads(b, dtype, 16); };
  }
  operations["block_attention"] = BlockAttention;
  operations["rms_norm"] = RmsNorm;
  operations["silu_gate"] = SiluGate;
  operations["sample_greedy"] = [](Backend& b) { return Sample(b, {}); };
  operations["sample_plain"] = [](Backend& b) { return Sample(b, {.temperature = 1}); };
  operations["sample_top_k_top_p"] = [](Backend& b) {
    return Sample(b, {.temperature = 0.8f, .top_k = 50, .top_p = 0.95f});
  };
  return operations;
}

int Main(int argc, char** argv) {
  const std::unique_ptr<Backend> backend = MakeBackend("cpu", 1).value();
  const std::map<std::string, Make> operations = Operations();
  if (argc < 2) {
    std::cout << backend->Description() << '\n';
    for (const auto& [name, make] : operations) std::cout << name << '\n';
    return 0;
  }
  const auto found = operations.find(argv[1]);
  if (found == operations.end()) {
    std::cerr << "instructions: no operation is called " << argv[1]
              << "; without one I list them\n";
    return 1;
  }
  const Work work = found->second(*backend);
  work();  // scratch memory grows in the first run alone
  CountedOperation(work);
  return 0;
}

}  // namespace
}  // namespace catserve

int main(int argc, char** argv) { return catserve::Main(argc, argv); }

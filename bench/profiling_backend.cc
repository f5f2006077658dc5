#include "bench/profiling_backend.h"

#include <algorithm>
#include <chrono>

namespace catserve {

double PartTime::FloorSeconds(const Ceilings& machine) const {
  double floor = 0;
  for (const OperationCost& cost : costs) {
    floor += std::max(cost.bytes / machine.read_bytes_per_second,
                      2 * cost.multiply_adds / machine.OpsPerSecond(cost.weights));
  }
  return floor;
}

template <typename Operation>
void ProfilingBackend::Time(const std::string& part, const OperationCost& cost,
                            Operation operation) {
  const auto start = std::chrono::steady_clock::now();
  operation();
  const auto end = std::chrono::steady_clock::now();
  PartTime& time = parts_[part];
  time.seconds += std::chrono::duration<double>(end - start).count();
  time.costs.push_back(cost);
}

absl::StatusOr<std::unique_ptr<Buffer>> ProfilingBackend::Allocate(int64_t bytes) {
  return backend_->Allocate(bytes);
}

absl::StatusOr<std::unique_ptr<Matrix>> ProfilingBackend::Pack(const TensorView& host,
                                                               WeightFormat format) {
  auto matrix = backend_->Pack(host, format);
  if (matrix.ok()) weights_[matrix->get()] = WeightDtype(host.dtype, format);
  return matrix;
}

absl::StatusOr<std::unique_ptr<Buffer>> ProfilingBackend::Upload(const TensorView& host) {
  return backend_->Upload(host);
}

void ProfilingBackend::Synchronize() { backend_->Synchronize(); }

void ProfilingBackend::Copy(void* to, const void* from, int64_t bytes) {
  Time("rows and norms", {}, [&] { backend_->Copy(to, from, bytes); });
}

void ProfilingBackend::Gather(const TensorView& out, std::span<const TensorView> tables,
                              const TensorView& history, std::span<const GatherRow> rows) {
  Time("rows and norms", {}, [&] { backend_->Gather(out, tables, history, rows); });
}

void ProfilingBackend::RmsNorm(const TensorView& out, const TensorView& x, const TensorView& weight,
                               float eps) {
  Time("rows and norms", {}, [&] { backend_->RmsNorm(out, x, weight, eps); });
}

void ProfilingBackend::MatMul(const TensorView& out, const TensorView& x, const Matrix& w,
                              bool add) {
  const auto name = names_.find(&w);
  const double multiply_adds =
      static_cast<double>(x.rows()) * static_cast<double>(w.in_features() * w.out_features());
  Time(name == names_.end() ? "other products" : name->second,
       {static_cast<double>(w.bytes()), multiply_adds, weights_.at(&w)},
       [&] { backend_->MatMul(out, x, w, add); });
}

void ProfilingBackend::SiluGate(const TensorView& out, const TensorView& gate_up) {
  Time("gates", {}, [&] { backend_->SiluGate(out, gate_up); });
}

void ProfilingBackend::PrepareHeads(const TensorView& qkv, const HeadSpec& spec,
                                    std::span<const int32_t> positions, const KvLayer* kv,
                                    std::span<const int64_t> slots) {
  Time("heads and KV writes", {}, [&] { backend_->PrepareHeads(qkv, spec, positions, kv, slots); });
}

void ProfilingBackend::PagedAttention(const TensorView& out, const TensorView& q,
                                      const HeadSpec& spec, const KvLayer& kv,
                                      std::span<const AttentionRow> rows,
                                      std::span<const int32_t> page_ids) {
  // A list of pages is read once, by the row that sees most of it.
  std::map<int32_t, int64_t> lists;
  double seen = 0;
  for (const AttentionRow& row : rows) {
    for (const auto& [list, entries] :
         {std::pair{row.page, row.entries}, std::pair{row.prefix_page, row.prefix_entries}}) {
      lists[list] = std::max<int64_t>(lists[list], entries);
      seen += entries;
    }
  }
  int64_t read = 0;
  for (const auto& [list, entries] : lists) read += entries;
  const double bytes = static_cast<double>(2 * read * kv.kv_heads) *
                       static_cast<double>(KvHeadBytes(kv.head_dim, kv.dtype));
  Time("attention", {bytes, 2 * seen * spec.heads * spec.head_dim},
       [&] { backend_->PagedAttention(out, q, spec, kv, rows, page_ids); });
}

void ProfilingBackend::BlockAttention(const TensorView& out, const TensorView& qkv,
                                      const HeadSpec& spec, std::span<const RowBlock> blocks) {
  double pairs = 0;
  for (const RowBlock& block : blocks) pairs += static_cast<double>(block.count) * block.count;
  Time("attention in chunks", {0, 2 * pairs * spec.heads * spec.head_dim},
       [&] { backend_->BlockAttention(out, qkv, spec, blocks); });
}

void ProfilingBackend::Sample(std::span<TokenDraw> out, const TensorView& logits,
                              int32_t vocab_size, std::span<const SampleSpec> specs) {
  Time("sampling", {}, [&] { backend_->Sample(out, logits, vocab_size, specs); });
}

void ProfilingBackend::ScoreTokens(std::span<TokenDraw> out, const TensorView& logits,
                                   int32_t vocab_size, std::span<const int32_t> targets,
                                   std::span<const int32_t> top_n) {
  Time("sampling", {}, [&] { backend_->ScoreTokens(out, logits, vocab_size, targets, top_n); });
}

}  // namespace catserve

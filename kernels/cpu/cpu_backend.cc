#include "kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "kernels/check.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/crew.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/int4_matrix.h"
#include "kernels/cpu/int8_matrix.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/products.h"
#include "kernels/shape_checks.h"

namespace catserve::cpu {
namespace {

class CpuBackend final : public Backend {
 public:
  CpuBackend(const Ops& ops, int threads) : ops_(ops), crew_(ops, threads), products_(ops, crew_) {}

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override {
    return HostBuffer::Create(bytes);
  }

  using Backend::Pack;
  absl::StatusOr<std::unique_ptr<Matrix>> Pack(const TensorView& host,
                                               WeightFormat format) override {
    if (format == WeightFormat::kInt8) return Int8Matrix::Create(host, crew_.pool());
    if (format == WeightFormat::kInt4) return Int4Matrix::Create(host, crew_.pool());
    if (format == WeightFormat::kE4M3) {
      return absl::UnimplementedError(
          "the cpu backend has no weights of F8_E4M3; with 8 bits it holds them as I8");
    }
    return PackedMatrix::Create(host, crew_.pool());
  }

  absl::StatusOr<std::unique_ptr<Buffer>> Upload(const TensorView& host) override;
  void Synchronize() override {}
  void Gather(const TensorView& out, std::span<const TensorView> tables, const TensorView& history,
              std::span<const GatherRow> rows) override;
  void RmsNorm(const TensorView& out, const TensorView& x, const TensorView& weight,
               float eps) override;
  void MatMul(const TensorView& out, const TensorView& x, const Matrix& w, bool add) override {
    CheckColumns(x, w.in_features(), "x");
    CheckColumns(out, w.out_features(), "out");
    CATSERVE_CHECK(out.rows() == x.rows()) << out.rows() << " rows of out for " << x.rows();
    products_.Multiply(out, x, w, add);
  }
  void SiluGate(const TensorView& out, const TensorView& gate_up) override;

  void PrepareHeads(const TensorView& qkv, const HeadSpec& spec, std::span<const int32_t> positions,
                    const KvLayer* kv, std::span<const int64_t> slots) override {
    if (kv != nullptr) CheckKv(*this, *kv, spec);
    cpu::PrepareHeads(crew_, qkv, spec, {positions, kv, slots});
  }

  void PagedAttention(const TensorView& out, const TensorView& q, const HeadSpec& spec,
                      const KvLayer& kv, std::span<const AttentionRow> rows,
                      std::span<const int32_t> page_ids) override {
    CheckKv(*this, kv, spec);
    cpu::PagedAttention(crew_, {out, q}, spec, {kv, rows, page_ids});
  }

  void BlockAttention(const TensorView& out, const TensorView& qkv, const HeadSpec& spec,
                      std::span<const RowBlock> blocks) override {
    cpu::BlockAttention(crew_, {out, qkv}, spec, blocks);
  }

  void Sample(std::span<TokenDraw> out, const TensorView& logits, int32_t vocab_size,
              std::span<const SampleSpec> specs) override;
  void ScoreTokens(std::span<TokenDraw> out, const TensorView& logits, int32_t vocab_size,
                   std::span<const int32_t> targets, std::span<const int32_t> top_n) override;

  const char* Description() const override { return ops_.description; }

 private:
  const Ops& ops_;
  Crew crew_;
  Products products_;
};

absl::StatusOr<std::unique_ptr<Buffer>> CpuBackend::Upload(const TensorView& host) {
  const int64_t row_bytes = host.row_size() * SizeOf(host.dtype);
  int64_t bytes = 0;
  if (__builtin_mul_overflow(host.rank == 0 ? 0 : host.rows(), row_bytes, &bytes)) bytes = -1;
  auto buffer = HostBuffer::Create(bytes);
  if (!buffer.ok()) return buffer.status();
  char* to = static_cast<char*>((*buffer)->data());
  for (int64_t i = 0; bytes > 0 && i < host.rows(); ++i) {
    std::memcpy(to + i * row_bytes,
                host.row<const char>(0) + i * host.row_stride * SizeOf(host.dtype),
                static_cast<size_t>(row_bytes));
  }
  return std::move(*buffer);
}

void CpuBackend::Gather(const TensorView& out, std::span<const TensorView> tables,
                        const TensorView& history, std::span<const GatherRow> rows) {
  CheckMatrix(out, "out");
  CATSERVE_CHECK(out.rows() == static_cast<int64_t>(rows.size()))
      << out.rows() << " rows of out for " << rows.size() << " to gather";
  const int64_t width = out.shape[1];
  crew_.ForEach(out.rows(), width, [&](int64_t i, Mate&) {
    const GatherRow& row = rows[i];
    CATSERVE_CHECK(row.table >= 0 && row.table < static_cast<int64_t>(tables.size()))
        << "table " << row.table << " of " << tables.size();
    const TensorView& table = tables[row.table];
    CATSERVE_CHECK(table.rank == 2 && table.shape[1] == width && table.dtype != DType::kI32)
        << "table " << row.table << " must be a float matrix of width " << width;
    int64_t index = row.index;
    if (row.via_history) {
      CATSERVE_CHECK(history.dtype == DType::kI32 && index >= 0 && index < history.size())
          << "history[" << index << "] of " << history.size();
      index = history.row<const int32_t>(0)[index];
    }
    CATSERVE_CHECK(index >= 0 && index < table.rows())
        << "row " << index << " of table " << row.table << " of " << table.rows();
    const char* from = static_cast<const char*>(table.data);
    ops_.widen(out.row<float>(i), from + index * table.row_stride * SizeOf(table.dtype),
               table.dtype, width);
  });
}

void CpuBackend::RmsNorm(const TensorView& out, const TensorView& x, const TensorView& weight,
                         float eps) {
  CheckMatrix(x, "x");
  CheckColumns(out, x.shape[1], "out");
  CATSERVE_CHECK(weight.dtype == DType::kF32 && weight.size() == x.shape[1] &&
                 out.rows() == x.rows())
      << "norm of [" << x.rows() << ", " << x.shape[1] << "] into " << out.rows()
      << " rows with a weight of " << weight.size() << " " << Name(weight.dtype);
  crew_.ForEach(x.rows(), x.shape[1], [&](int64_t i, Mate&) {
    ops_.rms_norm(out.row<float>(i), x.row<const float>(i), weight.row<const float>(0), x.shape[1],
                  eps);
  });
}

void CpuBackend::SiluGate(const TensorView& out, const TensorView& gate_up) {
  CheckMatrix(out, "out");
  const int64_t width = out.shape[1];
  CheckColumns(gate_up, 2 * width, "gate_up");
  CATSERVE_CHECK(out.rows() == gate_up.rows())
      << out.rows() << " rows of out for " << gate_up.rows();
  crew_.ForEach(out.rows(), 4 * width, [&](int64_t i, Mate&) {
    const float* gate = gate_up.row<const float>(i);
    ops_.silu_gate(out.row<float>(i), gate, gate + width, width);
  });
}

void CpuBackend::Sample(std::span<TokenDraw> out, const TensorView& logits, int32_t vocab_size,
                        std::span<const SampleSpec> specs) {
  CheckLogits(logits, vocab_size, specs.size());
  CATSERVE_CHECK(out.size() == specs.size()) << out.size() << " draws of " << specs.size();
  crew_.ForEach(logits.rows(), 4 * int64_t{vocab_size}, [&](int64_t i, Mate& mate) {
    out[i] = mate.sampler.Draw(logits.row<const float>(i), vocab_size, specs[i]);
    if (specs[i].drawn_at != nullptr) *specs[i].drawn_at = out[i].id;
  });
}

void CpuBackend::ScoreTokens(std::span<TokenDraw> out, const TensorView& logits, int32_t vocab_size,
                             std::span<const int32_t> targets, std::span<const int32_t> top_n) {
  CheckLogits(logits, vocab_size, targets.size());
  CATSERVE_CHECK(out.size() == targets.size() && top_n.size() == targets.size())
      << out.size() << " results and " << top_n.size() << " counts of " << targets.size();
  crew_.ForEach(logits.rows(), 4 * int64_t{vocab_size}, [&](int64_t i, Mate& mate) {
    CATSERVE_CHECK(targets[i] >= 0 && targets[i] < vocab_size)
        << "token " << targets[i] << " is not of the vocabulary of " << vocab_size;
    out[i] = mate.sampler.Score(logits.row<const float>(i), vocab_size, targets[i], top_n[i]);
  });
}

}  // namespace

std::unique_ptr<Backend> MakeCpuBackend(const Ops& ops, int threads) {
  return std::make_unique<CpuBackend>(ops, threads);
}

}  // namespace catserve::cpu

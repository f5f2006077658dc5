#include "kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/check.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/crew.h"
#include "kernels/cpu/hold_int8.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/int4_matrix.h"
#include "kernels/cpu/int8_matrix.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/shape_checks.h"

namespace catserve::cpu {
namespace {

// Rows that go through all panels before the next rows do: their activations stay in the L2 cache
// while the weights stream. A multiple of the register tiles.
constexpr int64_t kRowBlock = 96;
// Panels that a thread takes together: with few rows latency is hidden across them.
constexpr int64_t kPanelGroup = 4;

class CpuBackend final : public Backend {
 public:
  CpuBackend(const Ops& ops, int threads) : ops_(ops), crew_(ops, threads) {}

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
  void MatMul(const TensorView& out, const TensorView& x, const Matrix& w, bool add) override;
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
  // A part of a product that one thread computes: all of `rows` with consecutive outputs.
  struct Piece {
    int64_t row;
    int64_t rows;
    int64_t panel;
    int64_t out_features;
  };
  // Calls multiply(piece) for pieces that make up the product of `rows` rows with w.
  template <typename Multiply>
  void ForPieces(const Matrix& w, int64_t rows, Multiply multiply);

  void MatMulInt8(const TensorView& out, const TensorView& x, const Int8Matrix& w, bool add);
  void MatMulInt4(const TensorView& out, const TensorView& x, const Int4Matrix& w, bool add);
  // The rows of x in groups, in `held`.
  template <typename Group>
  const Group* HoldRows(std::vector<Group>& held, const TensorView& x);

  const Ops& ops_;
  Crew crew_;
  // Inputs of one product of whole numbers; each grows to the largest need seen.
  std::vector<Int8Group> int8_inputs_;
  std::vector<Int16Group> int16_inputs_;
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

void CpuBackend::MatMul(const TensorView& out, const TensorView& x, const Matrix& w, bool add) {
  CheckColumns(x, w.in_features(), "x");
  CheckColumns(out, w.out_features(), "out");
  CATSERVE_CHECK(out.rows() == x.rows()) << out.rows() << " rows of out for " << x.rows();
  if (const auto* int8 = dynamic_cast<const Int8Matrix*>(&w)) return MatMulInt8(out, x, *int8, add);
  if (const auto* int4 = dynamic_cast<const Int4Matrix*>(&w)) return MatMulInt4(out, x, *int4, add);
  const auto* packed = dynamic_cast<const PackedMatrix*>(&w);
  CATSERVE_CHECK(packed != nullptr) << "the matrix was packed by another backend";
  ForPieces(w, x.rows(), [&](const Piece& piece) {
    ops_.mat_mul({.out = out.row<float>(piece.row) + piece.panel * kPanel,
                  .out_stride = out.row_stride,
                  .x = x.row<const float>(piece.row),
                  .x_stride = x.row_stride,
                  .rows = piece.rows,
                  .panels = packed->panel(piece.panel),
                  .dtype = packed->dtype(),
                  .in = w.in_features(),
                  .out_features = piece.out_features,
                  .add = add});
  });
}

template <typename Group>
const Group* CpuBackend::HoldRows(std::vector<Group>& held, const TensorView& x) {
  const int64_t in = x.shape[1];
  const int64_t groups = (in + kGroupInputs - 1) / kGroupInputs;
  held.resize(std::max(held.size(), static_cast<size_t>(x.rows() * groups)));
  crew_.ForEach(x.rows(), 4 * in, [&](int64_t i, Mate&) {
    HoldInputs(ops_, held.data() + i * groups, x.row<const float>(i), in);
  });
  return held.data();
}

void CpuBackend::MatMulInt8(const TensorView& out, const TensorView& x, const Int8Matrix& w,
                            bool add) {
  const Int16Group* held = HoldRows(int16_inputs_, x);
  ForPieces(w, x.rows(), [&](const Piece& piece) {
    ops_.mat_mul_int8({.out = out.row<float>(piece.row) + piece.panel * kPanel,
                       .out_stride = out.row_stride,
                       .x = held + piece.row * w.groups(),
                       .rows = piece.rows,
                       .panels = w.panel(piece.panel),
                       .scales = w.scales(piece.panel),
                       .groups = w.groups(),
                       .out_features = piece.out_features,
                       .add = add});
  });
}

void CpuBackend::MatMulInt4(const TensorView& out, const TensorView& x, const Int4Matrix& w,
                            bool add) {
  const Int8Group* held = HoldRows(int8_inputs_, x);
  ForPieces(w, x.rows(), [&](const Piece& piece) {
    ops_.mat_mul_int4({.out = out.row<float>(piece.row) + piece.panel * kPanel,
                       .out_stride = out.row_stride,
                       .x = held + piece.row * w.groups(),
                       .rows = piece.rows,
                       .panels = w.panel(piece.panel),
                       .groups = w.groups(),
                       .out_features = piece.out_features,
                       .add = add});
  });
}

template <typename Multiply>
void CpuBackend::ForPieces(const Matrix& w, int64_t rows, Multiply multiply) {
  const int64_t group_width = kPanelGroup * kPanel;
  const int64_t groups = (w.out_features() + group_width - 1) / group_width;
  const int64_t blocks = (rows + kRowBlock - 1) / kRowBlock;
  const int64_t group_work = std::min(rows, kRowBlock) * group_width * w.in_features();
  crew_.ForRanges(blocks * groups, group_work, [&](Range share, Mate&) {
    while (share.begin < share.end) {
      const int64_t block = share.begin / groups;
      const int64_t end = std::min(share.end, (block + 1) * groups);
      const int64_t group = share.begin - block * groups;
      const int64_t column = group * group_width;
      multiply(
          {.row = block * kRowBlock,
           .rows = std::min(kRowBlock, rows - block * kRowBlock),
           .panel = group * kPanelGroup,
           .out_features = std::min((end - share.begin) * group_width, w.out_features() - column)});
      share.begin = end;
    }
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

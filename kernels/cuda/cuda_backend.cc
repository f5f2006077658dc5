#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cuda/attention_ops.h"
#include "kernels/cuda/device_context.h"
#include "kernels/cuda/device_matrix.h"
#include "kernels/cuda/logits_ops.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/row_bucket.h"
#include "kernels/shape_checks.h"

namespace catserve::cuda {
namespace {

// The compute capability from which a device converts E4M3.
constexpr int kE4M3Min = 89;

// Blocks of the decode kernel that a multiprocessor holds, from the compiler's count of registers
// (docs/cuda.md): 64 from Hopper on, 80 before.
Device DeviceOf(const DeviceFacts& facts) {
  const bool hopper = facts.compute_capability >= 90;
  return {.multiprocessors = facts.multiprocessors,
          .whole_blocks = hopper ? 8 : 6,
          .split_blocks = hopper ? 4 : 3};
}

class CudaBackend final : public Backend {
 public:
  CudaBackend(std::unique_ptr<DeviceContext> context, const CudaMemory& memory)
      : context_(std::move(context)),
        memory_(memory),
        description_(absl::StrCat("cuda ", context_->runtime->facts().name)),
        prepare_heads_(*context_),
        paged_attention_(*context_),
        block_attention_(*context_) {}

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override {
    return DeviceBuffer::Create(*context_, bytes);
  }

  std::optional<DeviceMemory> Memory() const override { return context_->runtime->memory(); }

  bool HoldsKv(DType dtype) const override {
    if (dtype == DType::kE4M3) return context_->runtime->facts().compute_capability >= kE4M3Min;
    return Backend::HoldsKv(dtype);
  }

  using Backend::Pack;
  absl::StatusOr<std::unique_ptr<Matrix>> Pack(const TensorView& host,
                                               WeightFormat format) override {
    return DeviceMatrix::Create(host, format, *context_);
  }

  absl::StatusOr<std::unique_ptr<Buffer>> Upload(const TensorView& host) override;
  void Synchronize() override { context_->Synchronize(); }
  int64_t Submit() override { return context_->Submit(); }
  void Await(int64_t submitted) override { context_->Await(submitted); }
  int StepsAhead() const override { return kStepsAtOnce - 1; }
  absl::StatusOr<std::unique_ptr<Backend>> MakeBeside() override;
  void After(Backend& other, int64_t submitted) override;
  void BeginPart(const StepPart& part) override {
    context_->work->BeginPart(part.rows <= kGraphRowsMax ? part : StepPart{});
  }
  int64_t PaddedRows(int64_t rows) const override {
    return rows >= 1 && rows <= kGraphRowsMax ? RowBucket(static_cast<int>(rows)) : rows;
  }
  PartCounts part_counts() const override { return context_->work->part_counts(); }
  void Copy(void* to, const void* from, int64_t bytes) override;
  void Gather(const TensorView& out, std::span<const TensorView> tables, const TensorView& history,
              std::span<const GatherRow> rows) override;
  void RmsNorm(const TensorView& out, const TensorView& x, const TensorView& weight,
               float eps) override;
  void MatMul(const TensorView& out, const TensorView& x, const Matrix& w, bool add) override;
  void SiluGate(const TensorView& out, const TensorView& gate_up) override;

  void PrepareHeads(const TensorView& qkv, const HeadSpec& spec, std::span<const int32_t> positions,
                    const KvLayer* kv, std::span<const int64_t> slots) override {
    if (kv != nullptr) CheckKv(*this, *kv, spec);
    prepare_heads_.Run(qkv, spec, {positions, kv, slots});
  }

  void PagedAttention(const TensorView& out, const TensorView& q, const HeadSpec& spec,
                      const KvLayer& kv, std::span<const AttentionRow> rows,
                      std::span<const int32_t> page_ids) override {
    CheckKv(*this, kv, spec);
    paged_attention_.Run(out, q, spec, {kv, rows, page_ids});
  }

  void BlockAttention(const TensorView& out, const TensorView& qkv, const HeadSpec& spec,
                      std::span<const RowBlock> blocks) override {
    block_attention_.Run(out, qkv, spec, blocks);
  }

  void Sample(std::span<TokenDraw> out, const TensorView& logits, int32_t vocab_size,
              std::span<const SampleSpec> specs) override {
    SampleRows(*context_, out, logits, vocab_size, specs);
  }

  void ScoreTokens(std::span<TokenDraw> out, const TensorView& logits, int32_t vocab_size,
                   std::span<const int32_t> targets, std::span<const int32_t> top_n) override {
    ScoreRows(*context_, out, logits, vocab_size, targets, top_n);
  }

  const char* Description() const override { return description_.c_str(); }

 private:
  std::unique_ptr<DeviceContext> context_;
  const CudaMemory memory_;
  std::string description_;
  PrepareHeadsOp prepare_heads_;
  PagedAttentionOp paged_attention_;
  BlockAttentionOp block_attention_;
};

absl::StatusOr<std::unique_ptr<Buffer>> CudaBackend::Upload(const TensorView& host) {
  const int64_t row_bytes = host.row_size() * SizeOf(host.dtype);
  const int64_t rows = host.rank == 0 ? 0 : host.rows();
  int64_t bytes = 0;
  if (__builtin_mul_overflow(rows, row_bytes, &bytes)) bytes = -1;
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> buffer = DeviceBuffer::Create(*context_, bytes);
  if (!buffer.ok()) return buffer.status();
  auto* const to = static_cast<char*>((*buffer)->data());
  const auto* const from = static_cast<const char*>(host.data);
  const int64_t stride_bytes = host.row_stride * SizeOf(host.dtype);
  if (stride_bytes == row_bytes) {
    context_->work->CopyIn(to, from, bytes);
  } else {
    for (int64_t i = 0; i < rows; ++i) {
      context_->work->CopyIn(to + i * row_bytes, from + i * stride_bytes, row_bytes);
    }
  }
  return *std::move(buffer);
}

void CudaBackend::Copy(void* to, const void* from, int64_t bytes) {
  if (bytes <= 0) return;
  if (context_->Owns(to) && !context_->Owns(from)) {
    context_->work->CopyIn(to, from, bytes);
  } else {
    context_->work->Copy(to, from, bytes);
  }
}

void CudaBackend::Gather(const TensorView& out, std::span<const TensorView> tables,
                         const TensorView& history, std::span<const GatherRow> rows) {
  CheckMatrix(out, "out");
  CATSERVE_CHECK(out.rows() == static_cast<int64_t>(rows.size()))
      << out.rows() << " rows of out for " << rows.size() << " to gather";
  CATSERVE_CHECK(tables.size() <= kGatherTablesMax)
      << tables.size() << " tables; a kernel takes " << kGatherTablesMax;
  GatherArgs args{.out = out.row<float>(0),
                  .out_stride = out.row_stride,
                  .width = static_cast<int32_t>(out.shape[1]),
                  .history = static_cast<const int32_t*>(history.data)};
  for (size_t i = 0; i < tables.size(); ++i) {
    CATSERVE_CHECK(tables[i].rank == 2 && tables[i].shape[1] == out.shape[1] &&
                   IsPlainFloat(tables[i].dtype))
        << "table " << i << " must be a float matrix of width " << out.shape[1];
    args.tables[i] = {tables[i].data, tables[i].row_stride, tables[i].dtype};
  }
  std::vector<GatherItem> items;
  for (const GatherRow& row : rows) {
    CATSERVE_CHECK(row.table >= 0 && row.table < static_cast<int64_t>(tables.size()))
        << "table " << row.table << " of " << tables.size();
    // What the history holds is the device's to know: the token ids were checked when written.
    const int64_t end = row.via_history ? history.size() : tables[row.table].rows();
    CATSERVE_CHECK(row.index >= 0 && row.index < end &&
                   (!row.via_history || history.dtype == DType::kI32))
        << "row " << row.index << " of " << end << (row.via_history ? " of the history" : "");
    items.push_back({row.table, row.index, row.via_history ? 1 : 0});
  }
  if (items.empty()) return;
  const int32_t count[] = {static_cast<int32_t>(items.size())};
  Packet lists;
  const int64_t items_at = lists.Add(items);
  const int64_t count_at = lists.Add(std::span<const int32_t>(count));
  const std::byte* base = context_->work->Send(lists);
  args.items = ListAt<GatherItem>(base, items_at);
  args.count = ListAt<int32_t>(base, count_at);
  context_->work->Do<LaunchGather>(args, count[0]);
}

void CudaBackend::RmsNorm(const TensorView& out, const TensorView& x, const TensorView& weight,
                          float eps) {
  CheckMatrix(x, "x");
  CheckActivations(out, x.shape[1], "out");
  CATSERVE_CHECK(weight.dtype == DType::kF32 && weight.size() == x.shape[1] &&
                 out.rows() == x.rows())
      << "norm of [" << x.rows() << ", " << x.shape[1] << "] into " << out.rows()
      << " rows with a weight of " << weight.size() << " " << Name(weight.dtype);
  const RmsNormArgs args{.out = out.data,
                         .x = x.row<const float>(0),
                         .weight = weight.row<const float>(0),
                         .out_stride = out.row_stride,
                         .x_stride = x.row_stride,
                         .rows = static_cast<int32_t>(x.rows()),
                         .width = static_cast<int32_t>(x.shape[1]),
                         .eps = eps};
  context_->work->Do<LaunchRmsNorm>(args, out.dtype);
}

void CudaBackend::MatMul(const TensorView& out, const TensorView& x, const Matrix& w, bool add) {
  const auto* matrix = dynamic_cast<const DeviceMatrix*>(&w);
  CATSERVE_CHECK(matrix != nullptr) << "the matrix was packed by another backend";
  CheckActivations(x, w.in_features(), "x");
  CheckActivations(out, w.out_features(), "out");
  CATSERVE_CHECK(out.rows() == x.rows()) << out.rows() << " rows of out for " << x.rows();
  CATSERVE_CHECK(x.dtype == DType::kF32 || x.dtype == w.activations())
      << "x of " << Name(x.dtype) << " by weights that take " << Name(w.activations());
  CATSERVE_CHECK(out.dtype == DType::kF32 || (out.dtype == x.dtype && !add))
      << (add ? "sums" : "a product") << " of " << Name(out.dtype) << " from x of "
      << Name(x.dtype);
  Multiply(*context_, out, x, *matrix, add);
}

void CudaBackend::SiluGate(const TensorView& out, const TensorView& gate_up) {
  CheckActivations(gate_up, gate_up.shape[1], "gate_up");
  CheckActivations(out, gate_up.shape[1] / 2, "out");
  CATSERVE_CHECK(out.rows() == gate_up.rows() && 2 * out.shape[1] == gate_up.shape[1] &&
                 out.dtype == gate_up.dtype)
      << "gates of [" << gate_up.rows() << ", " << gate_up.shape[1] << "] " << Name(gate_up.dtype)
      << " into " << out.rows() << " rows of " << Name(out.dtype);
  const SiluGateArgs args{.out = out.data,
                          .gate_up = gate_up.data,
                          .out_stride = out.row_stride,
                          .in_stride = gate_up.row_stride,
                          .rows = static_cast<int32_t>(out.rows()),
                          .width = static_cast<int32_t>(out.shape[1])};
  context_->work->Do<LaunchSiluGate>(args, out.dtype);
}

// Keeps the first error; after it, every part is null.
template <typename Part>
std::unique_ptr<Part> Take(absl::StatusOr<std::unique_ptr<Part>> made, absl::Status& status) {
  if (made.ok()) return *std::move(made);
  status.Update(made.status());
  return nullptr;
}

absl::StatusOr<std::unique_ptr<DeviceContext>> MakeContext(
    absl::StatusOr<std::unique_ptr<Runtime>> runtime, const CudaMemory& memory) {
  if (!runtime.ok()) return runtime.status();
  auto context = std::make_unique<DeviceContext>();
  context->runtime = *std::move(runtime);
  Runtime& device = *context->runtime;
  absl::Status status;
  context->work = Take(WorkQueue::Create(device, memory.upload_bytes), status);
  if (!status.ok()) return status;
  context->downloads =
      Take(DownloadArena::Create(device, *context->work, memory.download_bytes), status);
  context->scratch = Take(Scratch::Create(device, memory.scratch_bytes), status);
  context->products = Take(MatMulLibrary::Create(device), status);
  if (!status.ok()) return status;
  context->device = DeviceOf(device.facts());
  return context;
}

absl::StatusOr<std::unique_ptr<Backend>> CudaBackend::MakeBeside() {
  constexpr int64_t kDownloadBytes = 4096;  // its results stay on the device
  CudaMemory memory = memory_;
  memory.download_bytes = std::min(memory.download_bytes, kDownloadBytes);
  auto context = MakeContext(context_->runtime->CreateBeside(), memory);
  if (!context.ok()) return context.status();
  (*context)->buffers = context_->buffers;
  return std::make_unique<CudaBackend>(*std::move(context), memory);
}

void AwaitMark(Runtime* runtime, const Runtime* other, int64_t mark, Stream /*stream*/) {
  runtime->After(*other, mark);
}

void CudaBackend::After(Backend& other, int64_t submitted) {
  const auto* const beside = dynamic_cast<const CudaBackend*>(&other);
  CATSERVE_CHECK(beside != nullptr) << "there is an order among backends of one device alone";
  context_->work->EndPart();  // nobody may record it
  context_->work->Do<AwaitMark>(context_->runtime.get(), beside->context_->runtime.get(),
                                submitted);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaMemory& memory) {
  auto context = MakeContext(Runtime::Create(), memory);
  if (!context.ok()) return context.status();
  return std::make_unique<CudaBackend>(*std::move(context), memory);
}

}  // namespace catserve::cuda

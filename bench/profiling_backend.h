// A backend that takes the time of every operation of another and adds it up by part of the model,
// beside what each must read and compute. For the backends whose operations are done when they
// return: the CPU's.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench/ceilings.h"
#include "kernels/backend.h"

namespace catserve {

// What an operation reads from memory at least, and what it computes. Nothing for work whose data
// lie in the caches: all but products and attention.
struct OperationCost {
  double bytes = 0;
  double multiply_adds = 0;
  std::string weights = "F32";  // of a product: ModelDescription::weight_dtype
};

// Operations of one part so far.
struct PartTime {
  double seconds = 0;
  std::vector<OperationCost> costs;

  // The sum over the operations of the larger of bytes over bandwidth and operations over rate.
  double FloorSeconds(const Ceilings& machine) const;
};

class ProfilingBackend final : public Backend {
 public:
  explicit ProfilingBackend(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}

  // Products with w count under this name; else under "other products".
  void Name(const Matrix& w, std::string part) { names_[&w] = std::move(part); }

  // By part, since the last call. Not while an operation runs.
  std::map<std::string, PartTime> Take() { return std::exchange(parts_, {}); }

  using Backend::Pack;
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override;
  absl::StatusOr<std::unique_ptr<Matrix>> Pack(const TensorView& host,
                                               WeightFormat format) override;
  absl::StatusOr<std::unique_ptr<Buffer>> Upload(const TensorView& host) override;
  void Synchronize() override;
  void Copy(void* to, const void* from, int64_t bytes) override;
  void Gather(const TensorView& out, std::span<const TensorView> tables, const TensorView& history,
              std::span<const GatherRow> rows) override;
  void RmsNorm(const TensorView& out, const TensorView& x, const TensorView& weight,
               float eps) override;
  void MatMul(const TensorView& out, const TensorView& x, const Matrix& w, bool add) override;
  void SiluGate(const TensorView& out, const TensorView& gate_up) override;
  void PrepareHeads(const TensorView& qkv, const HeadSpec& spec, std::span<const int32_t> positions,
                    const KvLayer* kv, std::span<const int64_t> slots) override;
  void PagedAttention(const TensorView& out, const TensorView& q, const HeadSpec& spec,
                      const KvLayer& kv, std::span<const AttentionRow> rows,
                      std::span<const int32_t> page_ids) override;
  void BlockAttention(const TensorView& out, const TensorView& qkv, const HeadSpec& spec,
                      std::span<const RowBlock> blocks) override;
  void Sample(std::span<TokenDraw> out, const TensorView& logits, int32_t vocab_size,
              std::span<const SampleSpec> specs) override;
  void ScoreTokens(std::span<TokenDraw> out, const TensorView& logits, int32_t vocab_size,
                   std::span<const int32_t> targets, std::span<const int32_t> top_n) override;
  std::optional<DeviceMemory> Memory() const override { return backend_->Memory(); }
  bool HoldsKv(DType dtype) const override { return backend_->HoldsKv(dtype); }
  int64_t Submit() override { return backend_->Submit(); }
  void Await(int64_t submitted) override { backend_->Await(submitted); }
  const char* Description() const override { return backend_->Description(); }

 private:
  // Runs the operation and counts it.
  template <typename Operation>
  void Time(const std::string& part, const OperationCost& cost, Operation operation);

  std::unique_ptr<Backend> backend_;
  std::map<const Matrix*, std::string> names_;
  std::map<const Matrix*, std::string> weights_;
  std::map<std::string, PartTime> parts_;
};

}  // namespace catserve

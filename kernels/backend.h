// The one narrow seam of tensor operations between the model and a device. The model is written
// once against it; kernels/cpu is the reference that defines each operation.
//
// Unless said otherwise activations are F32, logits and the residual stream always; what lies
// between two products may be of the 16-bit type that the second names (Matrix::activations).
// Every operation is asynchronous with respect to the
// host on devices that have a stream, in order among themselves. Shapes are checked once at the
// edge (CHECK); a mismatch is a bug. Bits (CPU): a row of a result depends only on that row's
// inputs and on the entries it sees, never on the number of rows, threads or pieces.
// Input spans lie in host memory and are read before the call returns; lists of token ids that the
// device writes itself (prompt and generated of SampleSpec, targets of ScoreTokens) lie in its own.
// Output spans must live until Synchronize, or Await of the next Submit, which fill them.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <tuple>

#include "absl/status/statusor.h"
#include "kernels/float8.h"
#include "kernels/kv_page.h"
#include "kernels/sampling.h"
#include "kernels/tensor.h"

namespace catserve {

// Device memory, freed with the object; zero-filled at start.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual void* data() = 0;
  virtual int64_t bytes() const = 0;
};

// A weight matrix [out, in] in the backend's own layout, made once at load.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual int64_t out_features() const = 0;
  virtual int64_t in_features() const = 0;
  virtual int64_t bytes() const = 0;  // read once per product: for the floor of a step

  // The type of rows that a product with it reads as they are: F32, BF16 or F16. Beside F32, which
  // every product takes, RmsNorm and SiluGate write it, MatMul reads and writes it, and heads may
  // have it in PrepareHeads and both attentions.
  virtual DType activations() const { return DType::kF32; }
};

// How a backend holds a weight matrix.
enum class WeightFormat : uint8_t {
  // With the source's precision (F16 may be held as F32). A product may round its inputs to the
  // 16-bit type of the weights: the CPU does so with BF16, CUDA with more than 8 rows.
  kAsIs,
  // Whole numbers from -127 to 127 with a scale for each output, the largest magnitude of its
  // weights / 127: w is held as round-half-even(w / scale). A product may hold its inputs with 8
  // bits as well, each group of 32 as KvLayer holds a head (the CPU does; CUDA multiplies floats).
  kInt8,
  // Whole numbers from 0 to 15 by groups of 32 inputs: each output has for each group a minimum m,
  // its least weight as BF16, and a scale s = KvScaleBits(largest weight - m, 15); w is held as
  // round-half-even((w - m) / s), but from 0 to 15. A product holds its inputs x with 8 bits as
  // well, each group as KvLayer holds a head: x = t n. Sums within a group are whole numbers:
  // out = sum over groups of (s t) (sum of w n) + m (t (sum of n)).
  kInt4,
  // E4M3 with an F32 scale for each output, the largest magnitude of its weights / 448: w is held
  // as w / scale, rounded half to even. A product of more than 8 rows holds each row of its inputs
  // by the same rule. On GPUs of compute capability 9.0.
  kE4M3,
};

// One row to gather: row `index` of tables[table], or, if via_history, row history[index] of it.
struct GatherRow {
  int32_t table = 0;
  int32_t index = 0;
  bool via_history = false;
};

// Heads of an attention layer and what is done to them before attention (golden README, section 2).
struct HeadSpec {
  int32_t heads = 0;
  int32_t kv_heads = 0;  // query head h uses key/value head h / (heads / kv_heads)
  int32_t head_dim = 0;  // a multiple of 2, at most 256
  float norm_eps = 0;
  TensorView q_norm;  // [head_dim] F32, or empty: no norm
  TensorView k_norm;  // [head_dim] F32, or empty
  TensorView rotary;  // [positions, head_dim]: cos in the first half of a row, sin in the second
};

// The KV memory of one layer, in the layout of kv_page.h: F32, BF16, I8 or, where the backend has
// it, E4M3. Keys are stored rotated. Entry e of a page list lies in page_ids[e / 16], at e % 16.
// With 8 bits the numbers x of an entry's head are held as x / scale, rounded half to even to what
// the type has, with scale = KvScaleBits(largest |x|, KvMost(type)), as zeros where the scale is 0
// or not finite; a scale that is not finite makes what is read no number.
struct KvLayer {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t pages = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  uint16_t* scales = nullptr;  // 8 bits: BF16 [pages, kv_heads, 2, kKvPageEntries]; else null
};

// The largest magnitude of a number held as I8.
inline constexpr float kKvInt8Most = 127.0f;
// The same of a type of 8 bits.
constexpr float KvMost(DType dtype) { return dtype == DType::kE4M3 ? kE4M3Max : kKvInt8Most; }

// What each entry's head holds beside its numbers: a scale, or nothing.
constexpr int64_t KvScaleBytes(DType dtype) { return SizeOf(dtype) == 1 ? 2 : 0; }
// Bytes of an entry's key, or value, of one head.
constexpr int64_t KvHeadBytes(int64_t head_dim, DType dtype) {
  return head_dim * SizeOf(dtype) + KvScaleBytes(dtype);
}

// What one query row sees: the first prefix_entries entries of the list that starts at
// page_ids[prefix_page], then the first `entries` entries of that which starts at page_ids[page].
struct AttentionRow {
  int32_t prefix_page = 0;
  int32_t prefix_entries = 0;
  int32_t page = 0;
  int32_t entries = 0;
};

// Rows [first, first + count) that see each other and nothing else.
struct RowBlock {
  int32_t first = 0;
  int32_t count = 0;
};

// Of a device, in bytes.
struct DeviceMemory {
  int64_t free = 0;
  int64_t total = 0;
};

// Work that recurs in many steps, as far as its shapes are concerned.
enum class PartKind : uint8_t { kOther, kCompressor, kDecoder, kOutput };

// What is given between BeginPart and the next BeginPart, a Copy or Submit. Parts that are equal
// are the same operations on the same shapes and memory, over other lists.
struct StepPart {
  PartKind kind = PartKind::kOther;  // kOther: like no other
  int32_t rows = 0;
  int32_t chunk_size = 0;  // kCompressor's

  bool operator<(const StepPart& other) const {
    return std::tie(kind, rows, chunk_size) < std::tie(other.kind, other.rows, other.chunk_size);
  }
};

// How often the parts of steps, others than kOther's, were run in which way.
struct PartCounts {
  int64_t replayed = 0;  // in one go, as recorded
  int64_t recorded = 0;  // and run in one go
  int64_t first = 0;     // launch by launch: nothing like it came before
  int64_t differed = 0;  // launch by launch: unlike what was recorded of its equals
  int64_t refused = 0;   // launch by launch: the device would not record it
};

class Backend {
 public:
  virtual ~Backend() = default;

  // -- Memory. Errors: RESOURCE_EXHAUSTED with the numbers. ---------------------------------------
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) = 0;

  // The memory that Allocate takes from, where it is the device's own; none where it is the host's.
  virtual std::optional<DeviceMemory> Memory() const { return std::nullopt; }

  // Whether KV memory may have the type. F32, BF16 and I8 on every backend.
  virtual bool HoldsKv(DType dtype) const {
    return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kI8;
  }

  // Packs a host matrix [out, in] (F32, F16 or BF16); the source may be released after the call.
  // Errors: also UNIMPLEMENTED for a format that the backend does not have.
  virtual absl::StatusOr<std::unique_ptr<Matrix>> Pack(const TensorView& host,
                                                       WeightFormat format) = 0;
  absl::StatusOr<std::unique_ptr<Matrix>> Pack(const TensorView& host) {
    return Pack(host, WeightFormat::kAsIs);
  }

  // Copies a host table into device memory as it is (embedding tables: any float dtype).
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Upload(const TensorView& host) = 0;

  // Waits until all operations so far are done; results in device memory may then be read.
  virtual void Synchronize() = 0;

  // Starts the operations so far, which until then may wait for each other so that their lists go
  // to the device together: to be called once all of a step are given. Synchronize implies it.
  // Returns what Await takes.
  virtual int64_t Submit() { return 0; }

  // Waits until the operations before a Submit are done, and for none after it: their host results
  // are valid then.
  virtual void Await(int64_t /*submitted*/) { Synchronize(); }

  // Steps that a device has to do while the host prepares the next: so many Submits may be without
  // their Await when operations are given, and none has to wait. 0: operations are done when they
  // return, and nothing is gained by giving them early.
  virtual int StepsAhead() const { return 0; }

  // Another backend of the same device: its operations run beside this one's, in an order with them
  // only where After asks for one. Buffers and matrices of either serve both. Null where operations
  // are done when they return. REQUIRES: this one outlives it, and a
  // buffer is freed when the other has no use for it any more. Errors: RESOURCE_EXHAUSTED,
  // UNAVAILABLE.
  virtual absl::StatusOr<std::unique_ptr<Backend>> MakeBeside() { return nullptr; }

  // What follows starts after what `other`, a backend of the same device, was given before the
  // Submit that returned `submitted`, one of its last few.
  virtual void After(Backend& /*other*/, int64_t /*submitted*/) {}

  // Announces a part of a step, which a backend may record and replay (nothing changes in what is
  // computed), and how many rows a batch is best padded to for parts to recur.
  virtual void BeginPart(const StepPart& /*part*/) {}
  virtual int64_t PaddedRows(int64_t rows) const { return rows; }
  // Since the backend was made. Any thread may ask.
  virtual PartCounts part_counts() const { return {}; }

  // Copies bytes between host and device memory or within it, in order with the operations. A host
  // source may change after the call; a host destination is valid after Synchronize. The default
  // serves backends whose memory is the host's and whose operations are done when they return.
  virtual void Copy(void* to, const void* from, int64_t bytes) {
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  }

  // -- Rows ---------------------------------------------------------------------------------------
  // out[i] = the row that rows[i] names, converted to F32. history: [n] I32, or empty.
  virtual void Gather(const TensorView& out, std::span<const TensorView> tables,
                      const TensorView& history, std::span<const GatherRow> rows) = 0;

  // out[i] = weight * x[i] / sqrt(mean(x[i]^2) + eps). x: F32. out: F32, and then it may be x, or
  // an activation type.
  virtual void RmsNorm(const TensorView& out, const TensorView& x, const TensorView& weight,
                       float eps) = 0;

  // out[i] = W x[i], or out[i] += W x[i] if `add`.  x: [rows, in], F32 or w.activations();
  // out: [rows, out], F32 or, unless `add`, the type of x. Sums are F32.
  virtual void MatMul(const TensorView& out, const TensorView& x, const Matrix& w, bool add) = 0;

  // out[i] = silu(gate_up[i][0:f]) * gate_up[i][f:2f].  out: [rows, f], gate_up: [rows, 2f], of one
  // activation type.
  virtual void SiluGate(const TensorView& out, const TensorView& gate_up) = 0;

  // -- Attention: qkv, q and out of one activation type -------------------------------------------
  // In place on qkv [rows, (heads + 2 kv_heads) * head_dim]: norm of every query and key head if
  // the spec has weights, then rotation by positions[i]. If kv is not null, then writes the key and
  // value of row i to entry `slots[i]` (page * 16 + entry; -1: none).
  virtual void PrepareHeads(const TensorView& qkv, const HeadSpec& spec,
                            std::span<const int32_t> positions, const KvLayer* kv,
                            std::span<const int64_t> slots) = 0;

  // out[i] = softmax over the entries that rows[i] sees of (q . k / sqrt(head_dim)), applied to v.
  // q: [rows, heads * head_dim] (a column block of qkv), out: [rows, heads * head_dim]. A row that
  // sees no entry gets zeros.
  virtual void PagedAttention(const TensorView& out, const TensorView& q, const HeadSpec& spec,
                              const KvLayer& kv, std::span<const AttentionRow> rows,
                              std::span<const int32_t> page_ids) = 0;

  // The same within blocks of rows of qkv, both directions (the compressor; head counts equal or
  // grouped).  out: [rows, heads * head_dim].
  virtual void BlockAttention(const TensorView& out, const TensorView& qkv, const HeadSpec& spec,
                              std::span<const RowBlock> blocks) = 0;

  // -- Logits -------------------------------------------------------------------------------------
  // Draws a token from each row of logits [rows, >= vocab_size] F32; columns >= vocab_size are
  // never looked at. Logits are not changed. See sampling.h for the exact rule. Host results are
  // valid after Synchronize, what a spec's drawn_at holds for every operation after this one.
  virtual void Sample(std::span<TokenDraw> out, const TensorView& logits, int32_t vocab_size,
                      std::span<const SampleSpec> specs) = 0;

  // out[i].logprob = log softmax(logits[i])[targets[i]], and the top_n[i] likeliest. REQUIRES:
  // targets of the vocabulary.
  virtual void ScoreTokens(std::span<TokenDraw> out, const TensorView& logits, int32_t vocab_size,
                           std::span<const int32_t> targets, std::span<const int32_t> top_n) = 0;

  // -- Load time ----------------------------------------------------------------------------------
  // What the machine can do, for benchmarks' floors; "cpu avx2", "cpu reference", ...
  virtual const char* Description() const = 0;
};

}  // namespace catserve

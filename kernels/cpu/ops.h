// The parts of each operation that one thread does on its own, as a table of functions. The forms
// are equal bit for bit: the scalar reference, which defines them, AVX2 with FMA, and AVX-512.
// Shapes were checked by the backend; everything here trusts its arguments.
//
// Plain structs and pointers only: the files built for AVX2 or AVX-512 may not instantiate inline
// functions that the linker could then pick for lesser machines.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace catserve::cpu {

// Weights are stored in panels of kPanel outputs: output o lies in panel o / kPanel. F32 weights of
// a panel are [in, kPanel], a line for each input; what fills up the last panel is zeros.
inline constexpr int64_t kPanel = 16;
inline constexpr int64_t kLineBytes = kPanel * 4;
// BF16 ones are [in / 2, kPanel] words, each with an output's weights for two inputs: the former's
// in the upper half, which is that weight as F32 but for what lies below it. An odd input at the
// end has zeros beside it.
constexpr uint32_t PairWord(uint16_t former, uint16_t latter) {
  return uint32_t{former} << 16 | latter;
}
constexpr int64_t Pairs(int64_t in) { return (in + 1) / 2; }

// out[r][o] (+)= fma over k = 0 .. in-1, in order, of x[r][k] * w[o][k], starting from 0. BF16
// weights: x is rounded to BF16, and a subnormal number read or made counts as zero, where what is
// made is judged after rounding with any exponent. That is what VDPBF16PS does for a pair of
// inputs: two fused multiply-adds, the upper halves' first.
struct MatMulTile {
  float* out = nullptr;  // [rows, out_features]
  int64_t out_stride = 0;
  const float* x = nullptr;  // [rows, in]; BF16 weights: what hold_bf16 of the same form wrote
  int64_t x_stride = 0;
  int64_t rows = 0;
  const void* panels = nullptr;  // of the first of out_features, which starts a panel
  int64_t in = 0;
  int64_t out_features = 0;
  bool add = false;  // the finished product is added to out
};
// Of a row that hold_bf16 wrote: rows of common lengths begin in different sets of a cache.
constexpr int64_t HeldBf16Stride(int64_t in) { return 2 * Pairs(in) + 16; }

// Whole numbers are multiplied in groups of inputs, with sums that are exact within a group; what
// fills up outputs and inputs is zeros. Weights lie panel after panel, each with its groups in
// order. In a group four inputs of an output are side by side, and sixteen outputs.
inline constexpr int64_t kGroupInputs = 32;
inline constexpr int64_t kQuads = kGroupInputs / 4;

// The weights of one panel for a group of inputs with 8 bits (WeightFormat::kInt8 of backend.h).
// Those of even inputs have 128 added and no sign, so that a pair is one word of 16 bits:
// 256 odd + (even + 128).
struct Int8Weights {
  uint8_t quads[kQuads][kPanel][4];
};
constexpr uint8_t HeldWeight(int8_t weight, int64_t input) {
  return static_cast<uint8_t>(weight + (input % 2 == 0 ? 128 : 0));
}

// With 4 bits (WeightFormat::kInt4).
struct Int4Group {
  uint8_t nibbles[kPanel * kGroupInputs / 2];
  uint16_t scales[kPanel];  // BF16
  uint16_t minima[kPanel];  // BF16
};
// Where the weight of a panel's output for an input of the group lies: a quad in the lower halves
// of the bytes, the next in the upper ones.
struct Nibble {
  int64_t byte;
  int shift;
};
constexpr Nibble NibbleOf(int64_t output, int64_t input) {
  return {(input / 8 * kPanel + output) * 4 + input % 4, static_cast<int>(input / 4 % 2) * 4};
}

// A group of inputs with 8 bits, for 4-bit weights.
struct Int8Group {
  int8_t numbers[kGroupInputs];
  float scale = 0;
  float sum = 0;  // scale * sum of the numbers
};
// The same for 8-bit weights. Of a pair of inputs (e, o) `even` has e, to multiply the word of
// their weights, and `odd` has o - 256 e, to multiply that word's upper byte: the sum of all is the
// sum of the products and 128 times that of the even inputs, which `start` takes off. Read by
// mat_mul_int8 of the same form alone: that of VNNI holds them its own way.
struct Int16Group {
  int16_t even[kGroupInputs / 2];
  int16_t odd[kGroupInputs / 2];
  float scale = 0;
  int32_t start = 0;
};

// out[r][o] (+)= scales[o] * sum, with over groups in order, starting from 0:
// sum = fma(x.scale, dot, sum), and dot the exact sum of the products of whole numbers.
struct Int8Tile {
  float* out = nullptr;  // [rows, out_features]
  int64_t out_stride = 0;
  const Int16Group* x = nullptr;  // [rows, groups]
  int64_t rows = 0;
  const Int8Weights* panels = nullptr;  // of the first of out_features, which starts a panel
  const float* scales = nullptr;        // of the outputs, filled up to whole panels
  int64_t groups = 0;
  int64_t out_features = 0;
  bool add = false;  // the finished product is added to out
};

// out[r][o] (+)= over groups in order, starting from 0: sum = fma(w.scale * x.scale, dot, sum),
// then sum = fma(w.minimum, x.sum, sum).
struct Int4Tile {
  float* out = nullptr;  // [rows, out_features]
  int64_t out_stride = 0;
  const Int8Group* x = nullptr;  // [rows, groups]
  int64_t rows = 0;
  const Int4Group* panels = nullptr;  // of the first of out_features, which starts a panel
  int64_t groups = 0;
  int64_t out_features = 0;
  bool add = false;  // the finished product is added to out
};

// Entries with consecutive logical indices, entry_stride elements apart. I8: the BF16 scales of
// the keys and of the values, readable up to a multiple of 8 entries; else null.
struct EntryRun {
  const void* keys = nullptr;
  const void* values = nullptr;
  int64_t count = 0;
  const uint16_t* key_scales = nullptr;
  const uint16_t* value_scales = nullptr;
};

struct Query {
  const float* q = nullptr;  // [head_dim]
  float* out = nullptr;      // [head_dim]
  int64_t visible = 0;       // sees logical entries [0, visible); none: out is zero
};

// For every query, by logical index e alone: s[e] = (q . k[e]) * scale with the dot product summed
// by lanes (math.h); m = max s; p[e] = Exp(s[e] - m); l = sum of p by lanes;
// out[d] = (fma over e in order of p[e] * v[e][d], starting from 0) / l. I8: the numbers as stored
// with s[e] = ((q . k[e]) * key scale) * scale, and p[e] * value scale in place of p[e] in out.
inline constexpr int64_t kQueryTile = 16;
struct AttentionTile {
  const EntryRun* runs = nullptr;  // in logical order; together at least every query's `visible`
  int64_t run_count = 0;
  int64_t entries = 0;  // of all runs
  int64_t entry_stride = 0;
  DType dtype = DType::kF32;  // F32, BF16 or I8
  int64_t head_dim = 0;
  float scale = 0;
  const Query* queries = nullptr;
  int64_t query_count = 0;  // at most kQueryTile
  float* scores = nullptr;  // scratch: [query_count, ScoreStride(entries)]
};
constexpr int64_t ScoreStride(int64_t entries) { return (entries + 7) / 8 * 8 + 16; }

struct WeighScale {
  float max = 0;
  float scale = 0;  // y = (z - max) * scale
};
// Ids are binned by y, so that a prefix of the ranked ids can be found without sorting them:
// bin trunc(y * -25.5), ascending as y falls; kNoBin for y at or below kSampleFloor.
inline constexpr int kWeightBins = 1024;
inline constexpr float kBinsPerUnit = -25.5f;
inline constexpr uint16_t kNoBin = 0xffff;

struct Ops {
  const char* description = nullptr;

  // out[i] = in[i] as F32 (in: any float type), and back, rounding to nearest even.
  void (*widen)(float* out, const void* in, DType dtype, int64_t n) = nullptr;
  void (*narrow)(void* out, const float* in, DType dtype, int64_t n) = nullptr;

  // The largest |in[i]|; NaN if there is one among them.
  float (*largest_magnitude)(const float* in, int64_t n) = nullptr;
  // out[i] = round-half-even(in[i] / scale). REQUIRES: scale > 0 and finite; |in[i] / scale| <= 128
  // less a half.
  void (*quantize)(int8_t* out, const float* in, float scale, int64_t n) = nullptr;

  // The inputs of a row for products with BF16 weights, an odd one at the end with a zero after it:
  // to [2 Pairs(n)], in a way of the form's own.
  void (*hold_bf16)(float* to, const float* x, int64_t n) = nullptr;

  // Groups of kGroupInputs inputs, each by the rule of KvLayer in backend.h for I8.
  void (*hold_int8)(Int8Group* to, const float* x, int64_t groups) = nullptr;
  // To the groups of a row from `first` on.
  void (*hold_int16)(Int16Group* row, int64_t first, const float* x, int64_t groups) = nullptr;

  // out = (x * (1 / sqrt(sum of squares by lanes / n + eps))) * weight. out may be x.
  void (*rms_norm)(float* out, const float* x, const float* weight, int64_t n, float eps) = nullptr;

  void (*mat_mul)(const MatMulTile& tile) = nullptr;  // F32 weights
  void (*mat_mul_bf16)(const MatMulTile& tile) = nullptr;
  void (*mat_mul_int8)(const Int8Tile& tile) = nullptr;
  void (*mat_mul_int4)(const Int4Tile& tile) = nullptr;

  // out[i] = Silu(gate[i]) * up[i].
  void (*silu_gate)(float* out, const float* gate, const float* up, int64_t n) = nullptr;

  // In place; u, v = elements i and i + head_dim/2 of head, c, s = the same elements of rotary:
  // u = fma(u, c, -(v * s)), v = fma(v, c, u * s).
  void (*rotate)(float* head, const float* rotary, int64_t head_dim) = nullptr;

  void (*attend)(const AttentionTile& tile) = nullptr;

  // Step 1 of sampling.h.
  void (*clean_logits)(float* out, const float* logits, int64_t n) = nullptr;

  // Lowest index of the largest element; no NaN among them. n > 0.
  int64_t (*arg_max)(const float* z, int64_t n) = nullptr;

  // Sum of Exp(z[i] - max), added by lanes of doubles.
  double (*sum_exp)(const float* z, int64_t n, float max) = nullptr;

  // Step 4 of sampling.h: weights[i] = SampleWeight(y), and the bin of y.
  void (*weigh)(uint64_t* weights, uint16_t* bins, const float* z, int64_t n,
                const WeighScale& scale) = nullptr;
};

const Ops& ReferenceOps();

// Null where the build or this machine lacks them: AVX2, FMA and F16C; with them AVX-512 F, BW, DQ
// and VL; with these VNNI; with this BF16.
const Ops* Avx2Ops();
const Ops* Avx512Ops();
const Ops* Avx512VnniOps();
const Ops* Avx512Bf16Ops();

}  // namespace catserve::cpu

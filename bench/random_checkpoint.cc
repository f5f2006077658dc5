#include "bench/random_checkpoint.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/random_numbers.h"
#include "nlohmann/json.hpp"

namespace catserve {
namespace {

using nlohmann::json;

constexpr int64_t kBlock = 4096, kMaxChunk = 32;
constexpr int64_t kVocabMultiple = 256;  // to which the authors pad embedding and output matrices

struct Tensor {
  std::string name;
  std::vector<int64_t> shape;
};

struct Stack {
  int64_t dim = 0, layers = 0, heads = 0, feed_forward = 0;
};

struct Shape {
  const char* name;
  int64_t vocab;
  Stack decoder;
  std::optional<Stack> compressor;  // none: a dense model
  bool qk_norm = false;
};

const Shape kShapes[] = {
    {"cat-1536", 32000, {1536, 12, 24, 4096}, Stack{768, 3, 12, 2048}},
    {"dense-768", 32000, {768, 12, 12, 2048}, std::nullopt},
    {"dense-1536", 32000, {1536, 12, 24, 4096}, std::nullopt},
    {"cat-256", 4096, {256, 4, 8, 704}, Stack{128, 2, 4, 352}},
    {"dense-128", 4096, {128, 4, 4, 352}, std::nullopt},
    {"cat-published", 50257, {2048, 12, 32, 5632}, Stack{1024, 3, 16, 2816}, true},
    {"dense-published", 50257, {1024, 12, 16, 2816}, std::nullopt, true},
    {"cat-32", 64, {32, 2, 2, 48}, Stack{16, 1, 1, 24}, true},
    {"dense-16", 64, {16, 2, 1, 24}, std::nullopt, true},
};

int64_t Count(const Tensor& t) {
  int64_t n = 1;
  for (int64_t d : t.shape) n *= d;
  return n;
}

int64_t PaddedVocab(int64_t vocab) {
  return (vocab + kVocabMultiple - 1) / kVocabMultiple * kVocabMultiple;
}

json StackConfig(const Shape& shape, const Stack& stack) {
  return {{"block_size", kBlock},
          {"vocab_size", shape.vocab},
          {"padded_vocab_size", PaddedVocab(shape.vocab)},
          {"n_layer", stack.layers},
          {"n_head", stack.heads},
          {"dim", stack.dim},
          {"n_local_heads", stack.heads},
          {"head_dim", stack.dim / stack.heads},
          {"intermediate_size", stack.feed_forward},
          {"rope_base", 10000},
          {"rope_n_elem", stack.dim / stack.heads},
          {"norm_eps", 1e-5},
          {"use_fused_ops", false},
          {"use_qk_norm", shape.qk_norm}};
}

void AddStack(const std::string& prefix, const json& s, std::vector<Tensor>& out) {
  const int64_t dim = s["dim"], f = s["intermediate_size"];
  for (int64_t i = 0; i < s["n_layer"].get<int64_t>(); ++i) {
    const std::string layer = absl::StrCat(prefix, "layers.", i, ".");
    out.push_back({layer + "attention_norm.weight", {dim}});
    out.push_back({layer + "attention.wqkv.weight", {3 * dim, dim}});
    out.push_back({layer + "attention.wo.weight", {dim, dim}});
    if (s["use_qk_norm"].get<bool>()) {
      out.push_back({layer + "attention.q_norm.weight", {s["head_dim"]}});
      out.push_back({layer + "attention.k_norm.weight", {s["head_dim"]}});
    }
    out.push_back({layer + "ffn_norm.weight", {dim}});
    out.push_back({layer + "feed_forward.fc_1.weight", {f, dim}});
    out.push_back({layer + "feed_forward.fc_2.weight", {f, dim}});
    out.push_back({layer + "feed_forward.proj.weight", {dim, f}});
  }
  out.push_back({prefix + "norm.weight", {dim}});
}

void AddCompressor(json& config, std::vector<Tensor>& out) {
  const int64_t e = config["compressor"]["dim"], d = config["decoder"]["dim"];
  const int64_t vocab = config["decoder"]["padded_vocab_size"];
  for (const char* stack : {"decoder", "compressor"}) {
    config[stack]["chunk_size"] = kMaxChunk;
    config[stack]["dim_fx"] = d;
    config[stack]["num_chunks"] = kBlock / kMaxChunk;
  }
  config["chunk_sizes"] = {4, 8, 16, 32};
  const int64_t kinds = std::countr_zero(static_cast<uint64_t>(kMaxChunk)) + 1;
  out.push_back({"f.wte.weight", {vocab, e}});
  out.push_back({"f.pos_tokens.weight", {kBlock, e}});
  out.push_back({"f.adaptive_token.weight", {kinds, e}});
  out.push_back({"f.proj_fx.weight", {d, kMaxChunk * e}});
  out.push_back({"dummy_fx.weight", {kinds, d}});
  out.push_back({"seperator.weight", {1, d}});
  AddStack("f.", config["compressor"], out);
}

// Norm weights 1, everything else uniform with deviation 1/sqrt(columns), as BF16.
void WriteTensor(const Tensor& t, uint64_t& state, std::ofstream& out) {
  std::vector<uint16_t> values(Count(t));
  const float range = std::sqrt(3.0f / static_cast<float>(t.shape.back()));
  for (uint16_t& v : values) {
    const float unit = NextRandom(state);
    const float value = t.shape.size() == 1 ? 1.0f : unit * range;
    v = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
  }
  out.write(reinterpret_cast<const char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(uint16_t)));
}

void WriteSafetensors(const std::vector<Tensor>& tensors, const std::filesystem::path& path) {
  json header;
  int64_t offset = 0;
  for (const Tensor& t : tensors) {
    const int64_t end = offset + 2 * Count(t);
    header[t.name] = {{"dtype", "BF16"}, {"shape", t.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&length), sizeof(length));
  out << text;
  uint64_t state = 42;
  for (const Tensor& t : tensors) WriteTensor(t, state, out);
}

}  // namespace

absl::Status WriteRandomCheckpoint(const std::string& shape,
                                   const std::filesystem::path& directory) {
  if (std::filesystem::exists(directory / "config.json")) return absl::OkStatus();
  const auto* found = std::find_if(std::begin(kShapes), std::end(kShapes),
                                   [&](const Shape& s) { return shape == s.name; });
  if (found == std::end(kShapes)) {
    std::string names;
    for (const Shape& s : kShapes) absl::StrAppend(&names, names.empty() ? "" : ", ", s.name);
    return absl::InvalidArgumentError(absl::StrCat("shape ", shape, " is not one of ", names));
  }
  json config = {{"model_type", found->compressor ? "cat" : "dense"}, {"compressor", nullptr}};
  config["decoder"] = StackConfig(*found, found->decoder);
  std::vector<Tensor> tensors;
  if (found->compressor) {
    config["compressor"] = StackConfig(*found, *found->compressor);
    AddCompressor(config, tensors);
  }
  const int64_t vocab = config["decoder"]["padded_vocab_size"];
  tensors.push_back({"wte.weight", {vocab, found->decoder.dim}});
  tensors.push_back({"output.weight", {vocab, found->decoder.dim}});
  AddStack("", config["decoder"], tensors);
  std::filesystem::create_directories(directory);
  WriteSafetensors(tensors, directory / "model.safetensors");
  std::ofstream out(directory / "config.json");  // last: its presence says that all is there
  out << config.dump(1) << "\n";
  if (!out.flush())
    return absl::ResourceExhaustedError(absl::StrCat("cannot write ", directory.string()));
  return absl::OkStatus();
}

}  // namespace catserve

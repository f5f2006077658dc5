#include "tests/engine/model/oracle.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "nlohmann/json.hpp"

namespace catserve::testing {
namespace {

using Vector = std::vector<double>;
using Mask = std::function<bool(int row, int seen)>;  // row sees `seen`

const HostArray& Find(const OracleModel& model, const std::string& name) {
  return model.weights.at(name + ".weight");
}

Vector RowOf(const HostArray& array, int row) {
  const int64_t columns = array.shape[1];
  return {array.values.begin() + row * columns, array.values.begin() + (row + 1) * columns};
}

Vector Multiply(const HostArray& w, const Vector& x) {
  Vector y(w.shape[0]);
  for (size_t o = 0; o < y.size(); ++o) {
    for (size_t i = 0; i < x.size(); ++i) y[o] += w.values[o * x.size() + i] * x[i];
  }
  return y;
}

void Norm(double* x, const HostArray& w, double eps) {
  const size_t n = w.values.size();
  double squares = 0;
  for (size_t i = 0; i < n; ++i) squares += x[i] * x[i];
  for (size_t i = 0; i < n; ++i) x[i] *= w.values[i] / std::sqrt(squares / n + eps);
}

Vector Normed(Vector x, const HostArray& w, double eps) {
  Norm(x.data(), w, eps);
  return x;
}

void Rotate(double* head, int size, int position, double base) {
  for (int i = 0; i < size / 2; ++i) {
    const double angle = position * std::pow(base, -2.0 * i / size);
    const double u = head[i], v = head[i + size / 2];
    head[i] = u * std::cos(angle) - v * std::sin(angle);
    head[i + size / 2] = v * std::cos(angle) + u * std::sin(angle);
  }
}

// Softmax attention of all rows, [q | k | v] each.
Rows Attend(const OracleStack& s, const Rows& qkv, const Mask& sees) {
  const int d = s.head_dim();
  Rows out(qkv.size(), Vector(s.dim));
  for (int i = 0; i < qkv.size(); ++i) {
    for (int h = 0; h < s.heads; ++h) {
      const int group = h / (s.heads / s.kv_heads);
      Vector weights(qkv.size());
      double sum = 0;
      for (int j = 0; j < qkv.size(); ++j) {
        if (!sees(i, j)) continue;
        double dot = 0;
        for (int e = 0; e < d; ++e) dot += qkv[i][h * d + e] * qkv[j][s.dim + group * d + e];
        sum += weights[j] = std::exp(dot / std::sqrt(d));
      }
      for (int j = 0; j < qkv.size(); ++j) {
        const double* v = qkv[j].data() + s.dim + (s.kv_heads + group) * d;
        for (int e = 0; e < d; ++e) out[i][h * d + e] += weights[j] / sum * v[e];
      }
    }
  }
  return out;
}

Rows RunStack(const OracleModel& model, const OracleStack& s, const std::string& prefix, Rows x,
              const std::vector<int>& positions, const Mask& sees) {
  for (int l = 0; l < s.layers; ++l) {
    const std::string layer = prefix + "layers." + std::to_string(l) + ".";
    Rows qkv;
    for (int i = 0; i < x.size(); ++i) {
      qkv.push_back(Multiply(Find(model, layer + "attention.wqkv"),
                             Normed(x[i], Find(model, layer + "attention_norm"), s.eps)));
      for (int h = 0; h < s.heads + s.kv_heads; ++h) {
        double* head = qkv[i].data() + h * s.head_dim();
        const char* norm = h < s.heads ? "attention.q_norm" : "attention.k_norm";
        if (s.qk_norm) Norm(head, Find(model, layer + norm), s.eps);
        Rotate(head, s.head_dim(), positions[i], s.rope_base);
      }
    }
    const Rows attended = Attend(s, qkv, sees);
    for (int i = 0; i < x.size(); ++i) {
      const Vector o = Multiply(Find(model, layer + "attention.wo"), attended[i]);
      for (int e = 0; e < s.dim; ++e) x[i][e] += o[e];
      const Vector h = Normed(x[i], Find(model, layer + "ffn_norm"), s.eps);
      Vector gate = Multiply(Find(model, layer + "feed_forward.fc_1"), h);
      const Vector up = Multiply(Find(model, layer + "feed_forward.fc_2"), h);
      for (int e = 0; e < gate.size(); ++e) gate[e] *= up[e] / (1 + std::exp(-gate[e]));
      const Vector down = Multiply(Find(model, layer + "feed_forward.proj"), gate);
      for (int e = 0; e < s.dim; ++e) x[i][e] += down[e];
    }
  }
  for (Vector& row : x) Norm(row.data(), Find(model, prefix + "norm"), s.eps);
  return x;
}

// W_p z, with column j of W_p the mean of the two columns of W that it lies between.
Vector Project(const OracleModel& model, int chunk_size, const Vector& z) {
  const HostArray& w = Find(model, "f.proj_fx");
  const int64_t s = model.chunk_size_max / chunk_size;
  Vector f(w.shape[0]);
  for (int64_t o = 0; o < w.shape[0]; ++o) {
    const float* row = w.values.data() + o * w.shape[1];
    for (int64_t j = 0; j < z.size(); ++j) {
      const double at = (j + 0.5) * s - 0.5;  // half-pixel centres
      const int64_t left = static_cast<int64_t>(std::floor(at));
      const double right_part = at - left;
      const double right = right_part == 0 ? 0 : right_part * row[left + 1];
      f[o] += ((1 - right_part) * row[left] + right) * z[j];
    }
  }
  return f;
}

Vector CompressChunk(const OracleModel& model, int chunk_size, int chunk,
                     std::span<const TokenId> tokens) {
  const bool adaptive = model.kind == ModelKind::kCat;
  Rows x;
  if (adaptive) x.push_back(RowOf(Find(model, "f.adaptive_token"), std::log2(chunk_size)));
  x.push_back(RowOf(Find(model, "f.pos_tokens"), chunk));
  for (const TokenId t : tokens) x.push_back(RowOf(Find(model, "f.wte"), t));
  std::vector<int> positions;
  for (int i = 0; i < x.size(); ++i) positions.push_back(i);
  const Rows out =
      RunStack(model, model.compressor, "f.", x, positions, [](int, int) { return true; });
  Vector z;
  for (int i = adaptive ? 2 : 1; i < out.size(); ++i) {
    z.insert(z.end(), out[i].begin(), out[i].end());
  }
  return Project(model, chunk_size, z);
}

// The decoder's whole sequence: what each row is and which rows it may see.
struct Layout {
  Rows x;
  std::vector<int> positions;
  std::vector<int> block;           // of each row
  std::vector<bool> is_summary;     // a g row
  std::vector<int> predicts_after;  // row that predicts the token after token i
};

Layout LayOut(const OracleModel& model, int chunk_size, std::span<const TokenId> tokens) {
  const int n = static_cast<int>(tokens.size());
  const bool adaptive = model.kind == ModelKind::kCat;
  Layout layout;
  layout.predicts_after.resize(n);
  const auto add = [&](Vector row, int position, int block, bool is_summary) {
    layout.x.push_back(std::move(row));
    layout.positions.push_back(position);
    layout.block.push_back(block);
    layout.is_summary.push_back(is_summary);
  };
  for (int k = 0; k <= n / chunk_size; ++k) {
    const int first = k * chunk_size;
    if (k == 0) {
      add(RowOf(Find(model, "dummy_fx"), adaptive ? std::log2(chunk_size) : 0), 0, 0, true);
    } else {
      const auto chunk = tokens.subspan(first - chunk_size, chunk_size);
      add(CompressChunk(model, chunk_size, k - 1, chunk), 0, k, true);
    }
    if (adaptive) add(RowOf(Find(model, "seperator"), 0), 1, k, false);
    if (k > 0) layout.predicts_after[first - 1] = static_cast<int>(layout.x.size()) - 1;
    for (int j = 0; j < chunk_size && first + j < n; ++j) {
      add(RowOf(Find(model, "wte"), tokens[first + j]), j + (adaptive ? 2 : 1), k, false);
      layout.predicts_after[first + j] = static_cast<int>(layout.x.size()) - 1;
    }
  }
  return layout;
}

Layout LayOutDense(const OracleModel& model, std::span<const TokenId> tokens) {
  Layout layout;
  for (int i = 0; i < tokens.size(); ++i) {
    layout.x.push_back(RowOf(Find(model, "wte"), tokens[i]));
    layout.positions.push_back(i);
    layout.block.push_back(0);
    layout.is_summary.push_back(false);
    layout.predicts_after.push_back(i);
  }
  return layout;
}

void AddRandom(OracleModel& model, std::mt19937& random, const std::string& name,
               std::vector<int64_t> shape, float mean, float deviation) {
  std::normal_distribution<float> normal(mean, deviation);
  int64_t size = 1;
  for (const int64_t extent : shape) size *= extent;
  HostArray array{std::move(shape), std::vector<float>(size)};
  for (float& value : array.values) value = normal(random);
  model.weights[name + ".weight"] = std::move(array);
}

void AddStack(OracleModel& model, std::mt19937& random, const OracleStack& s,
              const std::string& prefix) {
  const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
    AddRandom(model, random, name, {out, in}, 0, 1.2f / std::sqrt(static_cast<float>(in)));
  };
  const auto norm = [&](const std::string& name, int64_t size) {
    AddRandom(model, random, name, {size}, 1, 0.3f);
  };
  for (int l = 0; l < s.layers; ++l) {
    const std::string layer = prefix + "layers." + std::to_string(l) + ".";
    norm(layer + "attention_norm", s.dim);
    linear(layer + "attention.wqkv", (s.heads + 2 * s.kv_heads) * s.head_dim(), s.dim);
    if (s.qk_norm) norm(layer + "attention.q_norm", s.head_dim());
    if (s.qk_norm) norm(layer + "attention.k_norm", s.head_dim());
    linear(layer + "attention.wo", s.dim, s.dim);
    norm(layer + "ffn_norm", s.dim);
    linear(layer + "feed_forward.fc_1", s.feed_forward, s.dim);
    linear(layer + "feed_forward.fc_2", s.feed_forward, s.dim);
    linear(layer + "feed_forward.proj", s.dim, s.feed_forward);
  }
  norm(prefix + "norm", s.dim);
}

nlohmann::json StackJson(const OracleModel& model, const OracleStack& s) {
  nlohmann::json json = {{"dim", s.dim},
                         {"n_layer", s.layers},
                         {"n_head", s.heads},
                         {"n_local_heads", s.kv_heads},
                         {"head_dim", s.head_dim()},
                         {"intermediate_size", s.feed_forward},
                         {"norm_eps", s.eps},
                         {"rope_base", s.rope_base},
                         {"rope_n_elem", s.head_dim()},
                         {"use_qk_norm", s.qk_norm},
                         {"vocab_size", model.vocab},
                         {"padded_vocab_size", model.padded_vocab},
                         {"block_size", model.block_size}};
  if (model.kind != ModelKind::kDense) {
    json["chunk_size"] = model.chunk_size_max;
    json["num_chunks"] = model.block_size / model.chunk_size_max;
    json["dim_fx"] = model.decoder.dim;
  }
  return json;
}

}  // namespace

std::string OracleModel::ConfigJson() const {
  nlohmann::json json;
  json["decoder"] = StackJson(*this, decoder);
  json["compressor"] = nullptr;
  json["model_type"] = "dense";
  if (kind != ModelKind::kDense) {
    json["compressor"] = StackJson(*this, compressor);
    json["model_type"] = kind == ModelKind::kCat ? "cat" : "cat_fixed";
    json["chunk_sizes"] = chunk_sizes;
  }
  return json.dump(1);
}

OracleModel RandomModel(ModelKind kind, OracleStack decoder, OracleStack compressor,
                        uint32_t seed) {
  OracleModel model{.kind = kind,
                    .decoder = decoder,
                    .compressor = compressor,
                    .vocab = 37,
                    .padded_vocab = 64,
                    .block_size = 64,
                    .chunk_size_max = 8,
                    .chunk_sizes = {2, 8}};
  std::mt19937 random(seed);
  const int64_t d = decoder.dim, e = compressor.dim;
  AddRandom(model, random, "wte", {model.padded_vocab, d}, 0, 1);
  AddRandom(model, random, "output", {model.padded_vocab, d}, 0, 0.3f);
  AddStack(model, random, decoder, "");
  HostArray& output = model.weights["output.weight"];
  for (int64_t i = model.vocab * d; i < output.values.size(); ++i) output.values[i] *= 100;
  if (kind == ModelKind::kDense) return model;

  const int64_t chunk_width = model.chunk_size_max * e;
  AddRandom(model, random, "f.wte", {model.padded_vocab, e}, 0, 1);
  AddRandom(model, random, "f.proj_fx", {d, chunk_width}, 0, 2.0f / std::sqrt(chunk_width));
  AddStack(model, random, compressor, "f.");
  if (kind == ModelKind::kCatFixed) {
    model.chunk_sizes = {model.chunk_size_max};
    AddRandom(model, random, "f.pos_tokens", {model.block_size / model.chunk_size_max, e}, 0, 1);
    AddRandom(model, random, "dummy_fx", {1, d}, 0, 1);
    return model;
  }
  const int64_t levels = std::log2(model.chunk_size_max) + 1;
  AddRandom(model, random, "f.pos_tokens", {model.block_size, e}, 0, 1);
  AddRandom(model, random, "f.adaptive_token", {levels, e}, 0, 1);
  AddRandom(model, random, "dummy_fx", {levels, d}, 0, 1);
  AddRandom(model, random, "seperator", {1, d}, 0, 1);
  return model;
}

Rows OracleLogits(const OracleModel& model, int chunk_size, std::span<const TokenId> tokens) {
  const Layout layout = model.kind == ModelKind::kDense ? LayOutDense(model, tokens)
                                                        : LayOut(model, chunk_size, tokens);
  const Rows out =
      RunStack(model, model.decoder, "", layout.x, layout.positions, [&](int row, int seen) {
        return seen <= row && (layout.is_summary[seen] || layout.block[seen] == layout.block[row]);
      });
  Rows logits;
  for (const int row : layout.predicts_after) {
    logits.push_back(Multiply(Find(model, "output"), out[row]));
    logits.back().resize(model.vocab);
  }
  return logits;
}

}  // namespace catserve::testing

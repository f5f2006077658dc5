#include "tests/engine/model/golden.h"

#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>

#include "engine/model/file.h"
#include "engine/model/safetensors.h"
#include "nlohmann/json.hpp"

namespace catserve::testing {
using nlohmann::json;

HostArrays ReadArrays(const std::string& path) {
  const std::string content = ReadFile(path, int64_t{1} << 30).value();
  const std::span<const std::byte> bytes = std::as_bytes(std::span(content));
  const std::vector<TensorInfo> tensors =
      ParseSafetensors(bytes, std::ssize(content), path).value();
  HostArrays arrays;
  for (const TensorInfo& info : tensors) {
    const float* data = reinterpret_cast<const float*>(bytes.data() + info.begin);
    const size_t size = (info.end - info.begin) / sizeof(float);
    arrays[info.name] = {info.shape, {data, data + size}};
  }
  return arrays;
}

std::string GoldenDirectory(const std::string& model) {
  return model == "fla-tiny" ? "tests/data/fla" : "tests/data/golden/" + model;
}

const GoldenCase& Golden::Case(const std::string& name) const {
  for (const GoldenCase& golden : cases) {
    if (golden.name == name) return golden;
  }
  throw std::out_of_range("no golden case " + name);
}

Golden LoadGolden(const std::string& model) {
  Golden golden;
  golden.arrays = ReadArrays(GoldenDirectory(model) + "/golden.safetensors");
  std::ifstream in(GoldenDirectory(model) + "/golden.json");
  const json document = json::parse(in);
  for (const json& entry : document.at("cases")) {
    const auto array = [&](const char* field) {
      return entry.contains(field) ? golden.arrays.at(entry[field].get<std::string>()).values
                                   : std::vector<float>();
    };
    GoldenCase c;
    c.name = entry.at("name");
    c.chunk_size = entry.at("chunk_size").is_null() ? 0 : entry["chunk_size"].get<int32_t>();
    c.prompt = entry.at("prompt").get<std::vector<TokenId>>();
    c.logits_last = array("logits_last");
    c.logits_all = array("logits_all");
    c.logits_end = array("logits_end");
    c.fx = array("fx");
    if (entry.contains("greedy")) {
      c.greedy = entry["greedy"].get<std::vector<TokenId>>();
      c.greedy_margins = entry["greedy_margins"].get<std::vector<float>>();
    }
    golden.cases.push_back(std::move(c));
  }
  return golden;
}

}  // namespace catserve::testing

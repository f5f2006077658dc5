#include "tests/engine/model/checkpoint_writer.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "kernels/bfloat16.h"
#include "nlohmann/json.hpp"

namespace catserve::testing {
namespace {

void AppendValue(float value, DType dtype, std::string& data) {
  if (dtype == DType::kF32) {
    data.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return;
  }
  const uint16_t bits = dtype == DType::kBF16 ? BF16FromFloat(value) : F16FromFloat(value);
  data.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
}

}  // namespace

TempDirectory::TempDirectory() {
  std::string pattern = std::filesystem::temp_directory_path() / "catserve_test_XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
  path_ = pattern;
}

TempDirectory::~TempDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void TempDirectory::Write(const std::string& name, const std::string& content) const {
  std::ofstream out(File(name), std::ios::binary);
  out << content;
  if (!out.flush()) throw std::runtime_error("cannot write " + File(name));
}

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string SafetensorsFile(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file + header + data;
}

std::string SafetensorsFile(const HostArrays& arrays, DType dtype) {
  nlohmann::json header;
  std::string data;
  for (const auto& [name, array] : arrays) {
    const size_t begin = data.size();
    for (const float value : array.values) AppendValue(value, dtype, data);
    header[name] = {
        {"dtype", Name(dtype)}, {"shape", array.shape}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return SafetensorsFile(text, data);
}

HostArrays Rounded(HostArrays arrays, DType dtype) {
  for (auto& [name, array] : arrays) {
    for (float& value : array.values) {
      if (dtype == DType::kBF16) value = FloatFromBF16(BF16FromFloat(value));
      if (dtype == DType::kF16) value = FloatFromF16(F16FromFloat(value));
    }
  }
  return arrays;
}

}  // namespace catserve::testing

#include "engine/model/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/model/json.h"

namespace catserve {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

using nlohmann::json;

constexpr int64_t kLengthBytes = 8;
constexpr JsonLimits kHeaderLimits{.depth = 4, .values = 1 << 20};
constexpr size_t kRankMax = 4;
constexpr char kCounterType[] = "I64";
constexpr int64_t kCounterBytes = 8;

std::optional<DType> ParseDType(const std::string& name) {
  if (name == "F32") return DType::kF32;
  if (name == "F16") return DType::kF16;
  if (name == "BF16") return DType::kBF16;
  return std::nullopt;
}

int64_t ElementBytes(const TensorInfo& info) {
  return info.counter ? kCounterBytes : SizeOf(info.dtype);
}

// One entry of the header. `where` starts its error messages.
class EntryReader {
 public:
  EntryReader(const std::string& file, const std::string& name, const json& entry)
      : where_(absl::StrCat(file, ": tensor ", Quoted(name))), entry_(entry) {}

  // Offsets of the result still count from the start of the data.
  absl::StatusOr<TensorInfo> Read(int64_t data_bytes) const {
    TensorInfo info;
    if (!entry_.is_object()) return Error(" is described by no object");
    const auto dtype = entry_.find("dtype");
    if (dtype == entry_.end() || !dtype->is_string()) return Error(" has no \"dtype\"");
    const std::optional<DType> known = ParseDType(dtype->get_ref<const std::string&>());
    info.counter = *dtype == kCounterType;
    if (!known && !info.counter) {
      return Error(" has dtype ", Quoted(dtype->get_ref<const std::string&>()),
                   ", only F32, F16 and BF16 are supported");
    }
    info.dtype = known.value_or(DType::kF32);
    if (absl::Status status = ReadShape(info); !status.ok()) return status;
    if (absl::Status status = ReadOffsets(info, data_bytes); !status.ok()) return status;
    return info;
  }

 private:
  template <typename... Parts>
  absl::Status Error(const Parts&... parts) const {
    return absl::InvalidArgumentError(absl::StrCat(where_, parts...));
  }

  absl::Status ReadShape(TensorInfo& info) const {
    const auto shape = entry_.find("shape");
    if (shape == entry_.end() || !shape->is_array()) return Error(" has no \"shape\"");
    if (shape->size() > kRankMax) {
      return Error(" has ", shape->size(), " dimensions, at most ", kRankMax, " are supported");
    }
    for (const json& size : *shape) {
      const std::optional<int64_t> value = AsSize(size);
      if (!value) return Error(" has a dimension that is no size");
      info.shape.push_back(*value);
    }
    return absl::OkStatus();
  }

  absl::Status ReadOffsets(TensorInfo& info, int64_t data_bytes) const {
    const auto offsets = entry_.find("data_offsets");
    if (offsets == entry_.end() || !offsets->is_array() || offsets->size() != 2) {
      return Error(" has no pair of \"data_offsets\"");
    }
    const std::optional<int64_t> begin = AsSize((*offsets)[0]);
    const std::optional<int64_t> end = AsSize((*offsets)[1]);
    if (!begin || !end || *begin > *end) return Error(" has data_offsets that are no range");
    if (*end > data_bytes) {
      return Error(" ends at byte ", *end, " of the data, which has only ", data_bytes,
                   ": the file is cut short or damaged");
    }
    int64_t bytes = ElementBytes(info);
    for (const int64_t size : info.shape) {
      if (__builtin_mul_overflow(bytes, size, &bytes)) return Error(" has a shape that overflows");
    }
    if (bytes != *end - *begin) {
      return Error(" of shape [", absl::StrJoin(info.shape, ", "), "] and dtype ",
                   info.counter ? kCounterType : Name(info.dtype), " needs ", bytes,
                   " bytes, its data_offsets span ", *end - *begin);
    }
    info.begin = *begin;
    info.end = *end;
    return absl::OkStatus();
  }

  static std::optional<int64_t> AsSize(const json& value) {
    if (!value.is_number_unsigned()) return std::nullopt;
    const uint64_t size = value.get<uint64_t>();
    if (size > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    return static_cast<int64_t>(size);
  }

  std::string where_;
  const json& entry_;
};

// Puts the tensors into the order of their data and proves that they tile it.
absl::Status CheckTiling(std::vector<TensorInfo>& tensors, int64_t data_bytes,
                         const std::string& file) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  int64_t covered = 0;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.begin != covered) {
      return absl::InvalidArgumentError(absl::StrCat(
          file, ": tensor ", Quoted(tensor.name), " starts at byte ", tensor.begin,
          " of the data, ", tensor.begin < covered ? "inside the tensor" : "after a gap",
          " that ends at ", tensor.begin < covered ? covered : tensor.begin));
    }
    covered = tensor.end;
  }
  if (covered != data_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": the tensors cover ", covered,
                                                   " bytes of data, the file has ", data_bytes));
  }
  return absl::OkStatus();
}

// Makes offsets count from the start of the file.
absl::Status Rebase(std::vector<TensorInfo>& tensors, int64_t data_begin, const std::string& file) {
  for (TensorInfo& tensor : tensors) {
    tensor.begin += data_begin;
    tensor.end += data_begin;
    if (!tensor.counter && tensor.begin % ElementBytes(tensor) != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": tensor ", Quoted(tensor.name), " starts at byte ", tensor.begin,
                       " of the file, no multiple of its element's ", ElementBytes(tensor),
                       " bytes: write the file again with its header padded by spaces"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<TensorInfo>> ParseSafetensors(std::span<const std::byte> bytes,
                                                         int64_t file_bytes,
                                                         const std::string& file) {
  if (file_bytes < kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": is ", file_bytes, " bytes long, too short for a safetensors file"));
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), kLengthBytes);
  const int64_t header_bytes_max = std::min(kSafetensorsHeaderBytesMax, file_bytes - kLengthBytes);
  if (header_bytes > static_cast<uint64_t>(header_bytes_max)) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": claims a header of ", header_bytes,
                                                   " bytes, at most ", header_bytes_max,
                                                   " are possible"));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes,
                              header_bytes);
  absl::StatusOr<json> header = ParseJsonObject(text, file, kHeaderLimits);
  if (!header.ok()) return header.status();

  const int64_t data_begin = kLengthBytes + static_cast<int64_t>(header_bytes);
  const int64_t data_bytes = file_bytes - data_begin;
  std::vector<TensorInfo> tensors;
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") continue;
    absl::StatusOr<TensorInfo> info = EntryReader(file, name, entry).Read(data_bytes);
    if (!info.ok()) return info.status();
    info->name = name;
    tensors.push_back(*std::move(info));
  }
  if (absl::Status status = CheckTiling(tensors, data_bytes, file); !status.ok()) return status;
  if (absl::Status status = Rebase(tensors, data_begin, file); !status.ok()) return status;
  return tensors;
}

}  // namespace catserve

#include "engine/model/checkpoint.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/model/json.h"

namespace catserve {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr int64_t kIndexBytesMax = 16 << 20;
constexpr JsonLimits kIndexLimits{.depth = 8, .values = 1 << 20};
constexpr size_t kShardsMax = 1024;

// A name that stays inside its directory.
bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name.find('/') == name.npos && name.find('\0') == name.npos &&
         name != "." && name != ".." && absl::EndsWith(name, ".safetensors");
}

using WeightMap = std::map<std::string, std::string>;  // tensor to shard

absl::StatusOr<WeightMap> ReadIndex(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kIndexBytesMax);
  if (!text.ok()) return text.status();
  absl::StatusOr<nlohmann::json> index = ParseJsonObject(*text, path, kIndexLimits);
  if (!index.ok()) return index.status();
  const auto weight_map = index->find("weight_map");
  if (weight_map == index->end() || !weight_map->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has no object \"weight_map\""));
  }
  WeightMap result;
  for (const auto& [tensor, shard] : weight_map->items()) {
    if (!shard.is_string() || !IsPlainFileName(shard.get_ref<const std::string&>())) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", Quoted(tensor), " lies in ",
                       shard.is_string() ? Quoted(shard.get_ref<const std::string&>()) : "no file",
                       ", expected the plain name of a .safetensors file in the same directory"));
    }
    result[tensor] = shard.get<std::string>();
  }
  return result;
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& directory) {
  Checkpoint checkpoint;
  checkpoint.directory_ = directory;
  const std::string single = absl::StrCat(directory, "/", kSingleFile);
  absl::Status status = checkpoint.AddFile(single);
  if (status.ok()) return checkpoint;
  if (!absl::IsNotFound(status)) return status;

  const std::string index_path = absl::StrCat(directory, "/", kIndexFile);
  absl::StatusOr<WeightMap> weight_map = ReadIndex(index_path);
  if (absl::IsNotFound(weight_map.status())) {
    return absl::NotFoundError(
        absl::StrCat(directory, ": holds neither ", kSingleFile, " nor ", kIndexFile));
  }
  if (!weight_map.ok()) return weight_map.status();
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : *weight_map) shards.insert(shard);
  if (shards.size() > kShardsMax) {
    return absl::InvalidArgumentError(absl::StrCat(index_path, ": names ", shards.size(),
                                                   " files, at most ", kShardsMax, " are allowed"));
  }
  for (const std::string& shard : shards) {
    status = checkpoint.AddFile(absl::StrCat(directory, "/", shard));
    if (!status.ok()) return status;
  }
  for (const auto& [tensor, shard] : *weight_map) {
    const auto found = checkpoint.tensors_.find(tensor);
    const std::string path = absl::StrCat(directory, "/", shard);
    if (found == checkpoint.tensors_.end() ||
        checkpoint.files_[found->second.file].path() != path) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": does not hold tensor ", Quoted(tensor), ", which ", kIndexFile, " puts there"));
    }
  }
  return checkpoint;
}

absl::Status Checkpoint::AddFile(const std::string& path) {
  absl::StatusOr<InputFile> file = InputFile::Open(path);
  if (!file.ok()) return file.status();
  std::vector<std::byte> beginning(std::min(file->size(), kSafetensorsBeginningBytesMax));
  if (absl::Status status = file->Read(0, beginning); !status.ok()) return status;
  absl::StatusOr<std::vector<TensorInfo>> tensors = ParseSafetensors(beginning, file->size(), path);
  if (!tensors.ok()) return tensors.status();
  for (TensorInfo& info : *tensors) {
    const std::string name = info.name;
    const auto [position, inserted] =
        tensors_.try_emplace(name, Entry{std::move(info), files_.size()});
    if (!inserted) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": tensor ", Quoted(name), " stands in ",
                                                     files_[position->second.file].path(), " too"));
    }
  }
  files_.push_back(*std::move(file));
  return absl::OkStatus();
}

absl::StatusOr<HostTensor> Checkpoint::Tensor(const std::string& name,
                                              std::initializer_list<int64_t> shape) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    const std::string& where = files_.size() == 1 ? files_[0].path() : directory_;
    return absl::NotFoundError(absl::StrCat(where, ": tensor ", Quoted(name),
                                            " is missing, expected shape [",
                                            absl::StrJoin(shape, ", "), "]"));
  }
  Entry& entry = found->second;
  const InputFile& file = files_[entry.file];
  if (!std::equal(shape.begin(), shape.end(), entry.info.shape.begin(), entry.info.shape.end())) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), ": tensor ", Quoted(name), " has shape [",
        absl::StrJoin(entry.info.shape, ", "), "], expected [", absl::StrJoin(shape, ", "), "]"));
  }
  if (entry.info.counter) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": tensor ", Quoted(name),
                     " has dtype \"I64\", only F32, F16 and BF16 are supported"));
  }
  HostTensor tensor;
  tensor.owned.resize(static_cast<size_t>(entry.info.end - entry.info.begin));
  if (absl::Status status = file.Read(entry.info.begin, tensor.owned); !status.ok()) return status;
  tensor.view = TensorView(tensor.owned.data(), entry.info.dtype, shape);
  if (const std::optional<int64_t> at = FirstNotFinite(tensor.view)) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), ": tensor ", Quoted(name), " holds NaN or infinity, first as element ", *at,
        ": the file is damaged, or what was trained is no model"));
  }
  if (!entry.used) elements_used_ += tensor.view.size();
  entry.used = true;
  return tensor;
}

std::vector<std::string> Checkpoint::UnusedTensors() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : tensors_) {
    if (!entry.used && !entry.info.counter) names.push_back(name);
  }
  return names;
}

}  // namespace catserve

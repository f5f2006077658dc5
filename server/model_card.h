// What a model's author states about it: <model>/card.json, optional, untrusted.
//
//   {"name": "tiny", "dense_twin": {"path": "../dense", "dim": 256, "n_layer": 4,
//    "n_local_heads": 4, "head_dim": 64,
//    "heldout_bits_per_byte": 1.95},
//    "quality": [{"chunk_size": 8, "heldout_bits_per_byte": 1.9}],
//    "tasks": [{"name": "recall_16", "measure": "accuracy with 16 pairs", "better": "higher",
//    "values": [{"chunk_size": 8, "value": 0.97}], "dense_twin": 1.0}]}
//
// `quality` is what cards had before `tasks`: without `tasks` it becomes the one task "text". Other
// fields are ignored.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace catserve {

inline constexpr int64_t kCardBytesMax = 1 << 20;
inline constexpr size_t kTaskNameBytesMax = 32;
inline constexpr size_t kTasksMax = 16;

// The dense model of the same quality, for comparison.
struct DenseTwin {
  int32_t dim = 0;
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  std::optional<double> heldout_bits_per_byte;
};

// One measure of quality: values of 0 or more by chunk size, of which none or a few may be missing.
struct QualityTask {
  std::string name;     // 1 to kTaskNameBytesMax of [a-z0-9_], unique on the card
  std::string measure;  // in words; one line
  bool higher_is_better = false;
  std::map<int32_t, double> values;
  std::optional<double> dense_twin;
};

struct ModelCard {
  std::string name;  // empty: the card names none
  std::optional<DenseTwin> dense_twin;
  std::map<int32_t, double> heldout_bits_per_byte;  // by chunk size
  std::vector<QualityTask> tasks;                   // the first counts where a request names none
};

// `file` is how errors name it. Errors: INVALID_ARGUMENT naming file, field and what is allowed.
absl::StatusOr<ModelCard> ParseModelCard(absl::string_view json, absl::string_view file);

// Reads `model_dir`/card.json; an empty card if there is none. Errors: as ParseModelCard, and
// INVALID_ARGUMENT for a file larger than kCardBytesMax or that cannot be read.
absl::StatusOr<ModelCard> LoadModelCard(const std::string& model_dir);

}  // namespace catserve

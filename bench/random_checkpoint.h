// Checkpoints with random weights, for measuring speed at shapes that nobody trained here.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/status.h"

namespace catserve {

// The shapes of docs/benchmarks.md: "dense-768" (12 layers, width 768, vocabulary 32,000), the CAT
// that matches it in quality, "cat-1536" (compressor 3 layers of width 768, decoder 12 of width
// 1536), and "dense-1536", the dense model as wide as that decoder. "cat-256" and "dense-128" (4
// layers, vocabulary 4,096) stand in the same relation and are small enough to be loaded quickly;
// "cat-32" and "dense-16" are for tests. "cat-published" has the shape of the authors' checkpoint
// (984M parameters, vocabulary 50,257), "dense-published" that of its dense twin.
// Writes config.json and model.safetensors (BF16) into `directory` unless they are there already.
absl::Status WriteRandomCheckpoint(const std::string& shape,
                                   const std::filesystem::path& directory);

}  // namespace catserve

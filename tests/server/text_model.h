// A model directory that takes text: the golden weights of adaptive-tiny with a tokenizer that fits
// their 512 ids.
#pragma once

#include "tests/engine/model/checkpoint_writer.h"

namespace catserve::testing {

// Writes config.json, model.safetensors, vocab.json and merges.txt: GPT-2's first 256 merges.
void WriteTextModel(const TempDirectory& directory);

}  // namespace catserve::testing

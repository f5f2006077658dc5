// Any text is either a configuration or a Status; what is accepted keeps the promises of config.h.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engine/model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = catserve::ParseConfig(text, "fuzz.json");
  if (!config.ok()) return 0;
  const catserve::StackConfig& decoder = config->decoder;
  const bool sound =
      decoder.heads * decoder.head_dim == decoder.dim && decoder.head_dim <= 256 &&
      decoder.heads % decoder.kv_heads == 0 && config->vocab_size <= config->padded_vocab_size &&
      config->chunk_sizes.empty() != config->compresses() &&
      std::is_sorted(config->chunk_sizes.begin(), config->chunk_sizes.end()) &&
      (!config->compresses() ||
       (config->chunk_sizes.front() > 0 && config->chunk_sizes.back() <= config->chunk_size_max));
  if (!sound) std::abort();
  return 0;
}

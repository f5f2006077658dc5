// Reading tokenizer files into a TokenizerSpec. Files are untrusted: errors are InvalidArgument
// (damaged), or Unimplemented (asks for what we do not do), and their messages name the field.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer_spec.h"

namespace catserve {

// A tokenizer.json of Hugging Face, of one of two kinds: byte-level BPE, or BPE with byte fallback.
// Fields that say nothing about tokens (truncation, padding, version) are not looked at.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view json);

// GPT-2's pair: vocab.json (token to id) and merges.txt. "<|endoftext|>" is special if it is there.
absl::StatusOr<TokenizerSpec> ParseVocabAndMerges(std::string_view vocab_json,
                                                  std::string_view merges);

// What a tokenizer_config.json adds: the bos and eos tokens and whether prompts start with bos.
absl::Status ApplyTokenizerConfig(std::string_view json, TokenizerSpec& spec);

// A whole file of at most kJsonBytesMax. NotFound: not there. InvalidArgument: not a regular file,
// or too large. Messages name the path.
absl::StatusOr<std::string> ReadTokenizerFile(const std::filesystem::path& path);

}  // namespace catserve

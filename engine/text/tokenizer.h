// Text to token ids and back: byte-pair encoding over bytes (GPT-2, Llama 3) or over characters
// with a byte fallback (Llama 2, as converted from SentencePiece).
//
// It does not add a beginning-of-text token (see TokenizerInfo), apply chat templates, truncate or
// pad, and it does not normalise Unicode: a file that asks for anything else is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace catserve {

// Encode refuses longer texts, so that one call's memory stays bounded.
inline constexpr size_t kTextBytesMax = size_t{4} << 20;

struct TokenizerInfo {
  int32_t vocab_size = 0;    // one more than the largest id
  int32_t bos_id = -1;       // -1 if none
  int32_t eos_id = -1;       // -1 if none
  bool prepend_bos = false;  // the files ask that a prompt start with bos_id; Encode does not do it
};

// Immutable after load, so any number of threads may use one at once.
class Tokenizer {
 public:
  // Loads from a model directory: tokenizer.json if there, else vocab.json and merges.txt; the bos
  // and eos tokens come from tokenizer_config.json if there, else from their usual names.
  // Files are untrusted. NotFound: neither form is there. InvalidArgument: damaged or inconsistent.
  // Unimplemented: asks for what this class does not do. Messages name the file and the field.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::filesystem::path& model_dir);

  // The same from the content of the files. Errors as Load, naming the usual file name.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromTokenizerJson(std::string_view json);
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromVocabAndMerges(std::string_view vocab_json,
                                                                       std::string_view merges);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Text to ids. With parse_special false the whole text is literal: no special or added token is
  // recognised in it, so a user's text cannot inject one. InvalidArgument: not valid UTF-8 (names
  // the byte offset), longer than kTextBytesMax, or too costly for the file's splitting pattern.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, bool parse_special) const;

  // The bytes of one token, perhaps a part of a UTF-8 character; of a special token, its name.
  // Lives as long as the tokenizer. Empty for an id that is not Valid or that the files skip.
  std::string_view TokenBytes(int32_t id) const;

  // Special tokens mark structure (end of text and the like) and are left out of decoded text.
  bool IsSpecial(int32_t id) const;

  bool Valid(int32_t id) const { return id >= 0 && id < info_.vocab_size; }

  // The bytes of a whole text: special tokens and ids that are not Valid skipped, and without the
  // space that the encoder puts in front where the files say so. Not necessarily valid UTF-8.
  std::string Decode(std::span<const int32_t> ids) const;

  const TokenizerInfo& info() const { return info_; }

 private:
  struct Parts;
  Tokenizer(std::unique_ptr<const Parts> parts, const TokenizerInfo& info);
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Build(struct TokenizerSpec spec);

  absl::Status EncodeNormalized(std::string_view text, bool at_text_start,
                                std::vector<int32_t>& ids) const;

  std::unique_ptr<const Parts> parts_;
  TokenizerInfo info_;
};

}  // namespace catserve

// The vocabulary: ids, how the files spell them, and the bytes they stand for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/text/tokenizer_spec.h"

namespace catserve {

// Larger ids are refused: a table has a row per id.
inline constexpr int32_t kVocabSizeMax = int32_t{1} << 20;

// Immutable after Build and thread-safe.
class TokenTable {
 public:
  // Checks ids (range, each used once) and added tokens against the vocabulary. Takes the strings
  // out of `spec.vocab`. InvalidArgument names the field and the token.
  static absl::StatusOr<TokenTable> Build(TokenizerSpec& spec);

  TokenTable(TokenTable&&) = default;  // not copyable: the maps look into the rows
  TokenTable& operator=(TokenTable&&) = default;

  int32_t size() const { return static_cast<int32_t>(rows_.size()); }

  // The id of a token of the vocabulary (added tokens that are not in it left out), by spelling.
  std::optional<int32_t> Find(std::string_view spelling) const;

  // As Find, of added tokens too.
  std::optional<int32_t> FindAny(std::string_view spelling) const;

  // REQUIRES for both: 0 <= id < size(). The view lives as long as the table.
  std::string_view Bytes(int32_t id) const { return rows_[id].bytes; }
  bool IsSpecial(int32_t id) const { return rows_[id].special; }
  std::string_view Spelling(int32_t id) const { return rows_[id].spelling; }

 private:
  TokenTable() = default;
  struct Row {
    std::string spelling;
    std::string bytes;
    bool used = false;
    bool special = false;
  };
  absl::Status AddVocab(TokenizerSpec& spec);
  absl::Status AddAdded(const AddedToken& token, size_t index);

  std::vector<Row> rows_;  // by id; never resized after its views are taken
  absl::flat_hash_map<std::string_view, int32_t> vocab_;
  absl::flat_hash_map<std::string_view, int32_t> added_;
};

}  // namespace catserve

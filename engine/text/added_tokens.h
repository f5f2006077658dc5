// Finds added tokens in text.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"

namespace catserve {

// Longer added tokens are refused: one look-up costs up to this many steps per byte of text.
inline constexpr size_t kAddedTokenBytesMax = 512;

// A set of strings, each with an id, searched leftmost first and longest first. Thread-safe once
// filled.
class AddedTokenMatcher {
 public:
  // REQUIRES: content not empty. Of equal contents the first id stays.
  void Add(std::string_view content, int32_t id);

  bool empty() const { return children_.empty(); }

  // Calls `on_text` and `on_token` for the parts of `text` in order; texts are never empty.
  // Returns false as soon as on_text does.
  bool Split(std::string_view text, absl::FunctionRef<bool(std::string_view)> on_text,
             absl::FunctionRef<void(int32_t)> on_token) const;

 private:
  struct Match {
    size_t length = 0;  // 0: none
    int32_t id = -1;
  };
  Match LongestAt(std::string_view text) const;

  // A trie over bytes; node 0 is the root.
  absl::flat_hash_map<uint64_t, int32_t> children_;  // by node << 8 | byte
  absl::flat_hash_map<int32_t, int32_t> ids_;        // by node
  std::array<bool, 256> starts_{};                   // bytes that begin a token
};

}  // namespace catserve

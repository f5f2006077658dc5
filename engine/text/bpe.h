// Byte-pair merging: the heart of the tokenizer, and nothing else of it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/text/token_table.h"

namespace catserve {

// A ranked list of pairs of tokens that merge into one. Immutable after Build and thread-safe.
class BpeMerges {
 public:
  // InvalidArgument, with the merge's index, if a part or the result is not in the vocabulary or a
  // pair is listed twice.
  static absl::StatusOr<BpeMerges> Build(
      const TokenTable& table, const std::vector<std::pair<std::string, std::string>>& merges);

  // Working memory, to be kept from piece to piece by one thread.
  class Scratch;

  // Merges neighbours in `ids` until no merge applies: always the highest-ranked pair, of equal
  // ones the leftmost. O(n log n) for n ids. REQUIRES fewer than 2^31 ids.
  void Apply(std::vector<int32_t>& ids, Scratch& scratch) const;

 private:
  struct Merge {
    int32_t rank;
    int32_t result;
  };
  const Merge* Find(int32_t left, int32_t right) const;

  absl::flat_hash_map<uint64_t, Merge> merges_;  // by both ids
};

class BpeMerges::Scratch {
 private:
  friend class BpeMerges;
  struct Node {  // of a list over the ids; merging unlinks the right one
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    int32_t rank;
    int32_t position;  // of the left id
    int32_t result;
    // The heap's top is its largest: the best candidate has to be that.
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  std::vector<Node> nodes_;
  std::vector<Candidate> heap_;
};

}  // namespace catserve

#include "engine/text/bpe.h"

#include <algorithm>
#include <array>
#include <optional>

#include "engine/text/message.h"

namespace catserve {
namespace {

constexpr int32_t kNone = -1;

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

absl::StatusOr<BpeMerges> BpeMerges::Build(
    const TokenTable& table, const std::vector<std::pair<std::string, std::string>>& merges) {
  BpeMerges built;
  built.merges_.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto& [left, right] = merges[i];
    const auto refuse = [&](std::string_view what, std::string_view why) {
      return absl::InvalidArgumentError(Message("model.merges[", i, "]: ", Quoted(what), " ", why));
    };
    const std::string both = left + right;
    const std::array parts = {&left, &right, &both};
    std::array<int32_t, 3> ids{};
    for (size_t k = 0; k < parts.size(); ++k) {
      const std::optional<int32_t> id = table.Find(*parts[k]);
      if (!id) return refuse(*parts[k], "is not in the vocabulary");
      ids[k] = *id;
    }
    const Merge merge{.rank = static_cast<int32_t>(i), .result = ids[2]};
    const bool fresh = built.merges_.emplace(PairKey(ids[0], ids[1]), merge).second;
    if (!fresh) return refuse(both, "is merged twice");
  }
  return built;
}

const BpeMerges::Merge* BpeMerges::Find(int32_t left, int32_t right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void BpeMerges::Apply(std::vector<int32_t>& ids, Scratch& scratch) const {
  auto& nodes = scratch.nodes_;
  auto& heap = scratch.heap_;
  const auto count = static_cast<int32_t>(ids.size());
  nodes.clear();
  heap.clear();
  for (int32_t i = 0; i < count; ++i) {
    nodes.push_back({.previous = i - 1, .next = i + 1 < count ? i + 1 : kNone});
    if (i + 1 == count) break;
    if (const Merge* merge = Find(ids[i], ids[i + 1])) {
      heap.push_back({.rank = merge->rank, .position = i, .result = merge->result});
    }
  }
  std::make_heap(heap.begin(), heap.end());
  const auto offer = [&](int32_t position) {
    const int32_t next = nodes[position].next;
    if (next == kNone) return;
    if (const Merge* merge = Find(ids[position], ids[next])) {
      heap.push_back({.rank = merge->rank, .position = position, .result = merge->result});
      std::push_heap(heap.begin(), heap.end());
    }
  };
  while (!heap.empty()) {
    const Scratch::Candidate best = heap.front();
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
    // An earlier merge may have taken either side since this candidate was offered.
    const int32_t left = best.position;
    const int32_t right = nodes[left].next;
    if (ids[left] == kNone || right == kNone) continue;
    const Merge* merge = Find(ids[left], ids[right]);
    if (merge == nullptr || merge->result != best.result) continue;

    ids[left] = best.result;
    ids[right] = kNone;
    nodes[left].next = nodes[right].next;
    if (nodes[left].next != kNone) nodes[nodes[left].next].previous = left;
    if (nodes[left].previous != kNone) offer(nodes[left].previous);
    offer(left);
  }
  std::erase(ids, kNone);
}

}  // namespace catserve

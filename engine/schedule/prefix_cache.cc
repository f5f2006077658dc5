#include "engine/schedule/prefix_cache.h"

#include <algorithm>

#include "engine/geometry.h"
#include "kernels/check.h"

namespace catserve {
namespace {

// Units that page `index` of a text holds when it is full.
int32_t UnitsOfPage(const Layout& layout, int64_t index) {
  return kPageEntries - (index == 0 ? layout.FirstUnitEntry() : 0);
}

int64_t CommonTokens(std::span<const TokenId> a, std::span<const TokenId> b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

// The child that has most leading tokens in common with `tokens`, and how many: in order of keys it
// stands next to where `tokens` would stand.
template <typename Children>
auto Closest(Children& children, std::span<const TokenId> tokens) {
  auto best = children.end();
  int64_t most = -1;
  const auto next = children.lower_bound(tokens);
  const auto consider = [&](auto child) {
    const int64_t common = CommonTokens(child->first, tokens);
    if (common > most) best = child, most = common;
  };
  if (next != children.end()) consider(next);
  if (next != children.begin()) consider(std::prev(next));
  return std::pair(best, std::max<int64_t>(most, 0));
}

}  // namespace

bool PrefixCache::Less::operator()(std::span<const TokenId> a, std::span<const TokenId> b) const {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
}

PrefixCache::PrefixCache(PagePool& pool) : pool_(pool), node_of_page_(pool.total(), nullptr) {
  pool_.OnEvict([this](PageId page) { Remove(page); });
}

PrefixCache::~PrefixCache() { pool_.OnEvict(nullptr); }

PrefixHit PrefixCache::Find(const Domain& domain, const Layout& layout,
                            std::span<const TokenId> tokens, int32_t units_max) const {
  PrefixHit hit;
  const auto root = roots_.find(domain);
  if (root == roots_.end()) return hit;
  const Children* children = &root->second;
  while (hit.units < units_max) {
    const auto index = static_cast<int64_t>(hit.pages.size());
    const int32_t wanted = std::min(UnitsOfPage(layout, index), units_max - hit.units);
    const auto [child, common] =
        Closest(*children, tokens.subspan(int64_t{hit.units} * layout.UnitTokens(),
                                          int64_t{wanted} * layout.UnitTokens()));
    const auto units = static_cast<int32_t>(common / layout.UnitTokens());
    if (units == 0) return hit;
    hit.units += units;
    if (units < UnitsOfPage(layout, index)) {
      hit.partial = child->second->page;
      hit.partial_entries = units + (index == 0 ? layout.FirstUnitEntry() : 0);
      return hit;
    }
    hit.pages.push_back(child->second->page);
    children = &child->second->children;
  }
  return hit;
}

void PrefixCache::Insert(const Domain& domain, const Layout& layout,
                         std::span<const TokenId> tokens, int32_t units, PageTable& table) {
  if (units <= 0) return;
  const auto root = roots_.try_emplace(domain).first;
  Children* children = &root->second;
  int32_t done = 0;
  for (int64_t index = 0; done < units; ++index) {
    const int32_t full = UnitsOfPage(layout, index);
    const int32_t count = std::min(full, units - done);
    const auto key =
        tokens.subspan(int64_t{done} * layout.UnitTokens(), int64_t{count} * layout.UnitTokens());
    const auto [child, common] = Closest(*children, key);
    Node* node = nullptr;
    if (common == std::ssize(key)) {  // kept already, perhaps in another page
      node = child->second.get();
      if (count == full) table.Replace(index, node->page);
    } else {
      node = KeepPage(*children, index == 0 ? &root->first : nullptr, key, table.pages()[index]);
    }
    children = &node->children;
    done += count;
  }
}

PrefixCache::Node* PrefixCache::KeepPage(Children& siblings, const Domain* root,
                                         std::span<const TokenId> key, PageId page) {
  if (Node* const grown = node_of_page_[page]; grown != nullptr) {  // its writer wrote on
    CATSERVE_CHECK(grown->siblings == &siblings && grown->children.empty())
        << "page " << page << " is kept for another text; a page has one writer";
    auto handle = siblings.extract(grown->place);
    handle.key().assign(key.begin(), key.end());
    grown->place = siblings.insert(std::move(handle)).position;
    return grown;
  }
  // A page that holds only the beginning of this one's text is not needed any more.
  const auto [shorter, common] = Closest(siblings, key);
  const bool covered = shorter != siblings.end() && common == std::ssize(shorter->first);
  auto owned = std::make_unique<Node>();
  Node* const node = owned.get();
  node->siblings = &siblings;
  node->root = root;
  node->page = page;
  node->place = siblings.emplace(Key(key.begin(), key.end()), std::move(owned)).first;
  pool_.Keep(page);
  node_of_page_[page] = node;
  ++nodes_;
  if (covered) Remove(shorter->second->page);
  return node;
}

void PrefixCache::Remove(PageId page) {
  Node* const node = node_of_page_[page];
  CATSERVE_CHECK(node != nullptr && node->children.empty())
      << "page " << page << " is no leaf of the prefix cache; deeper pages must go first";
  node_of_page_[page] = nullptr;
  --nodes_;
  const Domain* const root = node->root;
  Children& siblings = *node->siblings;
  siblings.erase(node->place);  // and with it the node
  if (siblings.empty() && root != nullptr) roots_.erase(*root);
  pool_.Forget(page);
}

}  // namespace catserve

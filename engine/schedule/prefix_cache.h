// Memory of texts that were read before, found again by their tokens.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/schedule/layout.h"
#include "engine/schedule/page_pool.h"
#include "engine/schedule/page_table.h"
#include "engine/step.h"

namespace catserve {

// Leading units of a text (Layout::Units) whose entries lie in memory.
struct PrefixHit {
  std::vector<PageId> pages;  // full pages, to be shared
  PageId partial = -1;        // a page whose first partial_entries entries match, to be copied
  int32_t partial_entries = 0;
  int32_t units = 0;  // in all
};

// A tree with a page at each node, whose key is the tokens that the page's units were made of: a
// text's pages are the way from the root. Texts of different chunk sizes or salts have different
// roots and never meet. Tokens are compared, not hashed: nobody can forge a hit.
//
// A page with room left (a leaf) stands for the units it holds so far; the sequence that writes it
// may go on. Holds no page itself: the pool keeps what nobody else holds, and takes the page that
// was left longest ago when it needs one. Sequences hold the whole way to their deepest page, and
// leave the deepest first, so that page is always a leaf. Not thread-safe.
class PrefixCache {
 public:
  struct Domain {
    int32_t chunk_size = 0;
    std::string salt;
    auto operator<=>(const Domain&) const = default;
  };

  // REQUIRES: pool outlives the cache; nobody else sets its OnEvict.
  explicit PrefixCache(PagePool& pool);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // The longest match among the first `units_max` units of `tokens`.
  PrefixHit Find(const Domain& domain, const Layout& layout, std::span<const TokenId> tokens,
                 int32_t units_max) const;

  // Keeps the first `units` units of a text, whose entries `table` holds. Where a page of the same
  // content is kept already, the table takes that one for its own. REQUIRES: tokens of all units.
  void Insert(const Domain& domain, const Layout& layout, std::span<const TokenId> tokens,
              int32_t units, PageTable& table);

  int64_t nodes() const { return nodes_; }
  int64_t domains() const { return static_cast<int64_t>(roots_.size()); }

 private:
  using Key = std::vector<TokenId>;
  struct Node;
  struct Less {
    using is_transparent = void;
    bool operator()(std::span<const TokenId> a, std::span<const TokenId> b) const;
  };
  using Children = std::map<Key, std::unique_ptr<Node>, Less>;
  struct Node {
    Children* siblings = nullptr;
    Children::iterator place;      // of this node among them
    const Domain* root = nullptr;  // the domain, if the siblings are those of its root
    PageId page = -1;
    Children children;
  };

  // The node of `page` with this key: new, or the page's own with its key grown.
  Node* KeepPage(Children& siblings, const Domain* root, std::span<const TokenId> key, PageId page);
  void Remove(PageId page);  // a leaf

  PagePool& pool_;
  std::map<Domain, Children> roots_;
  std::vector<Node*> node_of_page_;  // null: not kept
  int64_t nodes_ = 0;
};

}  // namespace catserve

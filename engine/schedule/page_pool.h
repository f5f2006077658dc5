// Which pages of KV memory are free, held or kept for later. Knows numbers only, never the memory
// itself.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <span>
#include <vector>

#include "engine/step.h"

namespace catserve {

// A fixed number of pages, 0 .. total - 1. Each is held by any number of sequences, and may be kept
// by the prefix cache besides; one that is kept and held by nobody is idle: whoever needs pages
// takes the idle ones too, longest idle first. Giving back a page that is not held aborts. Not
// thread-safe.
class PagePool {
 public:
  explicit PagePool(int64_t pages);
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  // Appends the ids of `count` pages, each held once, or takes nothing and returns false if fewer
  // are available.
  [[nodiscard]] bool Allocate(int64_t count, std::vector<PageId>& pages);

  // One more holder of a page that is held or idle.
  void Hold(PageId page);

  // One holder less of each, the last page first: of pages that fall idle together, the last one is
  // the first to be taken.
  void Free(std::span<const PageId> pages);

  // The prefix cache keeps a held page from becoming free, until Forget.
  void Keep(PageId page);
  void Forget(PageId page);

  // Called when an idle page is to be taken: it must Forget the page. REQUIRED before Keep.
  void OnEvict(std::function<void(PageId)> evict) { evict_ = std::move(evict); }

  int64_t total() const { return static_cast<int64_t>(pages_.size()); }
  int64_t free() const { return static_cast<int64_t>(free_.size()); }
  int64_t idle() const { return static_cast<int64_t>(idle_.size()); }
  int64_t available() const { return free() + idle(); }
  int64_t held() const { return total() - available(); }
  int32_t holders(PageId page) const { return pages_[page].holders; }

 private:
  struct Page {
    int32_t holders = 0;
    bool kept = false;
    std::list<PageId>::iterator place;  // in idle_, if kept and without holders
  };

  bool Exists(PageId page) const { return page >= 0 && page < total(); }

  std::vector<Page> pages_;
  std::vector<PageId> free_;  // the last is taken next: pages still warm in caches go first
  std::list<PageId> idle_;    // longest idle first
  std::function<void(PageId)> evict_;
};

}  // namespace catserve

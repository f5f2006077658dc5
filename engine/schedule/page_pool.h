// Which pages of KV memory are free. Knows numbers only, never the memory itself.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/step.h"

namespace catserve {

// A fixed number of pages, 0 .. total - 1. Giving back a page that is not taken aborts. Not
// thread-safe.
class PagePool {
 public:
  explicit PagePool(int64_t pages);
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  // Appends `count` page ids to `pages`, or takes nothing and returns false if fewer are free.
  [[nodiscard]] bool Allocate(int64_t count, std::vector<PageId>& pages);
  void Free(std::span<const PageId> pages);

  int64_t total() const { return static_cast<int64_t>(taken_.size()); }
  int64_t free() const { return static_cast<int64_t>(free_.size()); }
  int64_t used() const { return total() - free(); }
  bool AllFree() const { return used() == 0; }

 private:
  std::vector<PageId> free_;  // the last is taken next: pages still warm in caches go first
  std::vector<bool> taken_;   // by page id
};

}  // namespace catserve

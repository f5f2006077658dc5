#include "engine/schedule/page_pool.h"

#include "kernels/check.h"

namespace catserve {

PagePool::PagePool(int64_t pages) : taken_(pages, false) {
  free_.reserve(pages);
  for (int64_t page = pages - 1; page >= 0; --page) free_.push_back(static_cast<PageId>(page));
}

bool PagePool::Allocate(int64_t count, std::vector<PageId>& pages) {
  if (count > free()) return false;
  for (int64_t i = 0; i < count; ++i) {
    pages.push_back(free_.back());
    taken_[free_.back()] = true;
    free_.pop_back();
  }
  return true;
}

void PagePool::Free(std::span<const PageId> pages) {
  for (const PageId page : pages) {
    CATSERVE_CHECK(page >= 0 && page < total() && taken_[page])
        << "page " << page << " is given back but not taken; look for a second owner of it";
    taken_[page] = false;
    free_.push_back(page);
  }
}

}  // namespace catserve

#include "engine/schedule/page_pool.h"

#include "kernels/check.h"

namespace catserve {

PagePool::PagePool(int64_t pages) : pages_(pages) {
  free_.reserve(pages);
  for (int64_t page = pages - 1; page >= 0; --page) free_.push_back(static_cast<PageId>(page));
}

bool PagePool::Allocate(int64_t count, std::vector<PageId>& pages) {
  if (count > available()) return false;
  while (free() < count) {
    const PageId oldest = idle_.front();
    evict_(oldest);
    CATSERVE_CHECK(!pages_[oldest].kept)
        << "page " << oldest << " is still kept after its eviction; the owner must Forget it";
  }
  for (int64_t i = 0; i < count; ++i) {
    pages.push_back(free_.back());
    pages_[free_.back()].holders = 1;
    free_.pop_back();
  }
  return true;
}

void PagePool::Hold(PageId page) {
  CATSERVE_CHECK(Exists(page) && (pages_[page].holders > 0 || pages_[page].kept))
      << "page " << page << " is free and cannot be shared; ask Allocate for it";
  Page& state = pages_[page];
  if (state.holders == 0) idle_.erase(state.place);
  ++state.holders;
}

void PagePool::Free(std::span<const PageId> pages) {
  for (auto page = pages.rbegin(); page != pages.rend(); ++page) {
    CATSERVE_CHECK(Exists(*page) && pages_[*page].holders > 0)
        << "page " << *page << " is given back but not taken; look for a second owner of it";
    Page& state = pages_[*page];
    if (--state.holders > 0) continue;
    if (state.kept) {
      state.place = idle_.insert(idle_.end(), *page);
    } else {
      free_.push_back(*page);
    }
  }
}

void PagePool::Keep(PageId page) {
  CATSERVE_CHECK(Exists(page) && pages_[page].holders > 0 && evict_)
      << "page " << page << " cannot be kept: only held pages can, after OnEvict";
  pages_[page].kept = true;
}

void PagePool::Forget(PageId page) {
  CATSERVE_CHECK(Exists(page) && pages_[page].kept)
      << "page " << page << " is not kept; look for a second node of it";
  Page& state = pages_[page];
  state.kept = false;
  if (state.holders > 0) return;
  idle_.erase(state.place);
  free_.push_back(page);
}

}  // namespace catserve

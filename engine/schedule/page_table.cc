#include "engine/schedule/page_table.h"

#include <utility>

#include "engine/geometry.h"
#include "kernels/check.h"

namespace catserve {

PageTable::PageTable(PageTable&& other) noexcept
    : pool_(other.pool_),
      entries_(std::exchange(other.entries_, 0)),
      pages_(std::exchange(other.pages_, {})) {}

bool PageTable::Append(int32_t count) {
  const int64_t more = PagesFor(entries_ + count) - static_cast<int64_t>(pages_.size());
  if (more > 0 && !pool_->Allocate(more, pages_)) return false;
  entries_ += count;
  return true;
}

int64_t PageTable::Room() const {
  const int64_t pages = static_cast<int64_t>(pages_.size()) + pool_->available();
  return pages * kPageEntries - entries_;
}

void PageTable::Adopt(std::span<const PageId> full_pages) {
  CATSERVE_CHECK(pages_.empty()) << "a table adopts pages before it has any of its own";
  for (const PageId page : full_pages) pool_->Hold(page);
  pages_.assign(full_pages.begin(), full_pages.end());
  entries_ = static_cast<int32_t>(full_pages.size()) * kPageEntries;
}

void PageTable::Replace(int64_t index, PageId page) {
  if (pages_[index] == page) return;
  pool_->Hold(page);
  pool_->Free({&pages_[index], 1});
  pages_[index] = page;
}

void PageTable::Truncate(int32_t entries) {
  CATSERVE_CHECK(entries <= entries_)
      << "cannot truncate " << entries_ << " entries to " << entries << "; Append adds entries";
  const int64_t keep = PagesFor(entries);
  pool_->Free(std::span<const PageId>(pages_).subspan(keep));
  pages_.resize(keep);
  entries_ = entries;
}

}  // namespace catserve

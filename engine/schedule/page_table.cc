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

void PageTable::Truncate(int32_t entries) {
  CATSERVE_CHECK(entries <= entries_)
      << "cannot truncate " << entries_ << " entries to " << entries << "; Append adds entries";
  const int64_t keep = PagesFor(entries);
  pool_->Free(std::span<const PageId>(pages_).subspan(keep));
  pages_.resize(keep);
  entries_ = entries;
}

}  // namespace catserve

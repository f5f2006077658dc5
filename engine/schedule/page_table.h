// The KV memory of one sequence: a stack of entries on pages. Knows nothing of what the entries
// mean.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/schedule/page_pool.h"
#include "engine/step.h"

namespace catserve {

// Holds its pages and gives them back when it shrinks or is destroyed. Leading pages may be shared
// with other tables: who appends writes only behind them. Not thread-safe.
class PageTable {
 public:
  // REQUIRES: pool outlives the table.
  explicit PageTable(PagePool& pool) : pool_(&pool) {}
  ~PageTable() { Truncate(0); }
  PageTable(PageTable&& other) noexcept;
  PageTable& operator=(PageTable&& other) = delete;

  // Makes room for `count` more entries, or changes nothing and returns false if the pool has too
  // few pages.
  [[nodiscard]] bool Append(int32_t count);

  // Entries that Append could add now.
  int64_t Room() const;

  // Starts with full pages that others have written. REQUIRES: an empty table.
  void Adopt(std::span<const PageId> full_pages);

  // Takes `page`, which holds the same entries, for pages()[index].
  void Replace(int64_t index, PageId page);

  // Drops all entries but the first `entries`. REQUIRES: entries <= entries().
  void Truncate(int32_t entries);

  int32_t entries() const { return entries_; }
  std::span<const PageId> pages() const { return pages_; }

 private:
  PagePool* pool_;
  int32_t entries_ = 0;
  std::vector<PageId> pages_;
};

}  // namespace catserve

#include "server/kv_size.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"

namespace catserve {
namespace {

int64_t FullContextPages(const ModelGeometry& model, int32_t chunk_size) {
  return PagesFor(PeakEntries(model, chunk_size, model.block_size));
}

}  // namespace

absl::StatusOr<int64_t> KvPages(const ModelGeometry& model, int64_t kv_memory_bytes, int32_t slots,
                                int64_t machine_bytes) {
  std::vector<int64_t> needs;  // one sequence's, by chunk size
  for (const int32_t chunk_size : model.chunk_sizes) {
    needs.push_back(FullContextPages(model, chunk_size));
  }
  if (!model.compresses()) needs.push_back(FullContextPages(model, 0));
  const auto [least, most] = std::minmax_element(needs.begin(), needs.end());
  const int64_t page_bytes = kPageEntries * model.bytes_per_entry;
  const int64_t given = kv_memory_bytes / page_bytes;
  const int64_t pages =
      kv_memory_bytes > 0 ? given : std::min(*most * slots, machine_bytes / 4 / page_bytes);
  if (pages >= *least) return pages;
  return absl::InvalidArgumentError(
      absl::StrCat("--kv_memory_bytes=", kv_memory_bytes, " gives ", pages,
                   " pages, too few for one sequence of the full context of ", model.block_size,
                   " tokens; use --kv_memory_bytes=", *least * page_bytes, " or more"));
}

std::string FullContextSequences(const ModelGeometry& model, int64_t pages) {
  if (!model.compresses()) return absl::StrCat(pages / FullContextPages(model, 0));
  std::string text;
  for (const int32_t chunk_size : model.chunk_sizes) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", chunk_size, ": ",
                    pages / FullContextPages(model, chunk_size));
  }
  return text;
}

int64_t MachineBytes() {
  const int64_t machine = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    int64_t limit = 0;
    if (std::ifstream(path) >> limit && limit > 0) return std::min(machine, limit);
  }
  return machine;
}

}  // namespace catserve

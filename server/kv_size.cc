#include "server/kv_size.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"

namespace catserve {
namespace {

int64_t FullContextPages(const ModelGeometry& model, int32_t chunk_size) {
  return PagesFor(PeakEntries(model, chunk_size, model.block_size));
}

struct ControlGroup {
  const char* limit;
  const char* used;
  const char* statistics;
  const char* reclaimable;  // file pages that are counted as used but given up when needed
};
constexpr ControlGroup kControlGroups[] = {
    {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat",
     "inactive_file"},
    {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
     "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file"}};

std::optional<int64_t> ReadNumber(const std::string& path) {
  int64_t number = 0;
  if (std::ifstream(path) >> number) return number;
  return std::nullopt;  // no such file, or "max"
}

// The number after `key`, in a file of such pairs.
std::optional<int64_t> ReadNumberOf(const std::string& path, const std::string& key) {
  std::ifstream in(path);
  std::string word;
  while (in >> word) {
    int64_t number = 0;
    if (word == key && in >> number) return number;
  }
  return std::nullopt;
}

}  // namespace

KvRoom RoomOnHost(int64_t available_bytes) {
  return {available_bytes / 4,
          absl::StrCat("a quarter of the ", available_bytes, " bytes of available memory")};
}

KvRoom RoomOnDevice(int64_t free_bytes, int64_t total_bytes, double memory_fraction) {
  constexpr int64_t kReserve = int64_t{256} << 20;  // for recorded parts and late-loaded kernels
  const auto share = static_cast<int64_t>((1 - memory_fraction) * static_cast<double>(total_bytes));
  const int64_t kept = std::max(share, kReserve);
  const int64_t bytes = std::max<int64_t>(0, free_bytes - kept);
  return {bytes, absl::StrCat("what --gpu_memory_fraction=", memory_fraction, " leaves (", bytes,
                              " bytes: ", free_bytes, " free of ", total_bytes,
                              " once weights and workspaces are there)")};
}

absl::StatusOr<int64_t> KvPages(const ModelGeometry& model, int64_t kv_memory_bytes, int32_t slots,
                                const KvRoom& room) {
  std::vector<int64_t> needs;  // one sequence's, by chunk size
  for (const int32_t chunk_size : model.chunk_sizes) {
    needs.push_back(FullContextPages(model, chunk_size));
  }
  if (!model.compresses()) needs.push_back(FullContextPages(model, 0));
  const auto [least, most] = std::minmax_element(needs.begin(), needs.end());
  const int64_t page_bytes = kPageEntries * model.bytes_per_entry;
  const int64_t pages = kv_memory_bytes > 0 ? kv_memory_bytes / page_bytes
                                            : std::min(2 * *most * slots, room.bytes / page_bytes);
  constexpr int64_t kPagesMax = INT32_MAX;  // page ids
  const std::string given =
      kv_memory_bytes > 0 ? absl::StrCat("--kv_memory_bytes=", kv_memory_bytes) : room.source;
  if (pages > kPagesMax) {
    return absl::InvalidArgumentError(absl::StrCat(given, " gives ", pages,
                                                   " pages of KV memory, which nothing can use; "
                                                   "use --kv_memory_bytes=",
                                                   kPagesMax * page_bytes, " or less"));
  }
  if (pages >= *least) return pages;
  return absl::InvalidArgumentError(absl::StrCat(
      given, " gives ", pages,
      " pages of KV memory, too few for one sequence of the full context of ", model.block_size,
      " tokens; use --kv_memory_bytes=", *least * page_bytes, " or more"));
}

std::string FullContextSequences(const ModelGeometry& model, int64_t pages) {
  if (!model.compresses()) return absl::StrCat(pages / FullContextPages(model, 0));
  std::string text;
  for (const int32_t chunk_size : model.chunk_sizes) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", pages / FullContextPages(model, chunk_size),
                    text.empty() ? " at chunk size " : " at ", chunk_size);
  }
  return text;
}

int64_t AvailableBytes(const std::string& root) {
  const std::optional<int64_t> kib = ReadNumberOf(root + "/proc/meminfo", "MemAvailable:");
  int64_t bytes = kib ? *kib * 1024 : int64_t{sysconf(_SC_AVPHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
  for (const ControlGroup& group : kControlGroups) {
    const std::optional<int64_t> limit = ReadNumber(root + group.limit);
    const std::optional<int64_t> used = ReadNumber(root + group.used);
    if (!limit || !used) continue;
    const int64_t reclaimable =
        ReadNumberOf(root + group.statistics, group.reclaimable).value_or(0);
    bytes = std::min(bytes, std::max<int64_t>(0, *limit - *used + reclaimable));
  }
  return bytes;
}

}  // namespace catserve

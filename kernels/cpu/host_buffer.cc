#include "kernels/cpu/host_buffer.h"

#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace catserve::cpu {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kHugePage = int64_t{2} << 20;

int64_t MachineBytes() { return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE); }

// Pages in turn from every memory node that this process may use: pieces of work are claimed by
// whichever thread is free, so none of them has a node of its own. A hint that may be refused.
void SpreadOverNodes(void* data, int64_t bytes) {
  unsigned long nodes[16] = {};  // NOLINT(google-runtime-int): the kernel's own type
  constexpr unsigned kMost = sizeof(nodes) * 8;
  if (syscall(SYS_get_mempolicy, nullptr, nodes, kMost, nullptr, MPOL_F_MEMS_ALLOWED) != 0) return;
  syscall(SYS_mbind, data, bytes, MPOL_INTERLEAVE, nodes, kMost, 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostBuffer>> HostBuffer::Create(int64_t bytes) {
  if (bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a buffer of ", bytes, " bytes was asked for: its size overflowed"));
  }
  // Checked first: Linux hands out more than it has, and kills the process when it is touched.
  const int64_t machine = MachineBytes();
  const int64_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  void* data = nullptr;
  if (bytes <= machine) {
    const int64_t rounded = (bytes / alignment + 1) * alignment;
    data = std::aligned_alloc(static_cast<size_t>(alignment), static_cast<size_t>(rounded));
  }
  if (data == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot allocate ", bytes, " bytes of host memory; the machine has ", machine,
                     ". Use a smaller model or fewer KV pages"));
  }
  // Fewer TLB misses where weights and KV memory are streamed; a hint that may be refused.
  if (alignment == kHugePage) {
    madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);
    SpreadOverNodes(data, bytes);
  }
  std::memset(data, 0, static_cast<size_t>(bytes));
  return std::unique_ptr<HostBuffer>(new HostBuffer(data, bytes));
}

HostBuffer::~HostBuffer() { std::free(data_); }

}  // namespace catserve::cpu

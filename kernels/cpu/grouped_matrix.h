// What weight matrices of whole numbers have in common: groups of inputs (ops.h), panel after
// panel.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/thread_pool.h"

namespace catserve::cpu {

// Group: the weights of one panel for kGroupInputs inputs; all its bytes zero is all weights zero.
template <typename Group>
class GroupedMatrix : public Matrix {
 public:
  int64_t out_features() const override { return out_; }
  int64_t in_features() const override { return in_; }
  int64_t bytes() const override { return buffer_->bytes(); }

  int64_t groups() const { return (in_ + kGroupInputs - 1) / kGroupInputs; }  // of a panel
  const Group* panel(int64_t i) const {
    return static_cast<const Group*>(std::as_const(*buffer_).data()) + i * groups();
  }

 protected:
  GroupedMatrix(int64_t out, int64_t in) : out_(out), in_(in) {}

  int64_t panels() const { return (out_ + kPanel - 1) / kPanel; }

  // Takes the memory, all zeros. Errors: RESOURCE_EXHAUSTED.
  absl::Status Allocate() {
    int64_t bytes = 0;
    if (__builtin_mul_overflow(panels(), groups(), &bytes) ||
        __builtin_mul_overflow(bytes, int64_t{sizeof(Group)}, &bytes)) {
      return absl::ResourceExhaustedError(
          absl::StrCat("a matrix of [", out_, ", ", in_, "] does not fit any memory"));
    }
    auto buffer = HostBuffer::Create(bytes);
    if (!buffer.ok()) return buffer.status();
    buffer_ = *std::move(buffer);
    return absl::OkStatus();
  }

  // Calls fill(output, the groups of its panel, its lane in them) for every output; panels go to
  // the pool's threads.
  template <typename Fill>
  void ForOutputs(ThreadPool& pool, const Fill& fill) {
    const int pieces = static_cast<int>(std::clamp<int64_t>(panels(), 1, kFillPieces));
    pool.Run(pieces, pool.threads(), [&](int piece, int) {
      const Range share = Share(panels(), piece, pieces);
      const int64_t end = std::min(share.end * kPanel, out_);
      for (int64_t output = share.begin * kPanel; output < end; ++output) {
        auto* const groups = const_cast<Group*>(panel(output / kPanel));
        fill(output, groups, output % kPanel);
      }
    });
  }

 private:
  static constexpr int64_t kFillPieces = 1024;  // at most; a piece is some panels

  int64_t out_;
  int64_t in_;
  std::unique_ptr<HostBuffer> buffer_;
};

}  // namespace catserve::cpu

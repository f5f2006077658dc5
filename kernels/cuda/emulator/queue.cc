#include "kernels/cuda/emulator/queue.h"

#include <utility>

#include "kernels/check.h"
#include "kernels/cuda/emulator/emulator.h"
#include "kernels/cuda/emulator/work.h"

namespace catserve::cuda::emulator {

Work& Work::Given() {
  static Work work;
  return work;
}

void Queue::AddLaunch(const LaunchShape& shape, std::function<void()> thread) {
  constexpr uint32_t kBlocksXMax = 0x7fffffffu;
  constexpr uint32_t kBlocksYMax = 0xffffu;
  CATSERVE_CHECK(shape.blocks_x > 0 && shape.blocks_x <= kBlocksXMax && shape.blocks_y > 0 &&
                 shape.blocks_y <= kBlocksYMax)
      << "a grid of " << shape.blocks_x << " x " << shape.blocks_y << " blocks; CUDA takes 1 to "
      << kBlocksXMax << " x " << kBlocksYMax;
  Add([shape, seed = launches_++, thread = std::move(thread)] { Launch(shape, seed, thread); });
}

void Queue::RunTo(int64_t given) {
  while (done_ < given) {
    const std::function<void()> work = std::move(waiting_.front());
    waiting_.pop_front();
    ++done_;
    work();
  }
}

}  // namespace catserve::cuda::emulator

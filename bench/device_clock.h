// How long operations take on a device that works through a list while the host goes on, and what
// such a device can do at best. On one whose operations are done when they return, plain time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/ceilings.h"
#include "kernels/backend.h"

namespace catserve {

// How large the probes are: enough that neither caches nor the work around them count.
struct ProbeSizes {
  int64_t copy_bytes = int64_t{1} << 30;
  int64_t outputs = 16384, inputs = 8192, rows = 8192;  // of the matrix product
  int tries = 7;
  double head_start_seconds = 0.01;
};

// Device seconds of one call, and the share of the timed parts that were replayed from graphs: none
// where a call is not a part, or the backend records none of its size.
struct Timing {
  double seconds = 0;
  std::optional<double> replayed;
};

// How calls that are timed come together: all of a try in one part, or, where what a call fetches
// would end it, each a step with a part of its own, as it is when tokens are drawn.
enum class PartOf : uint8_t { kTry, kCall };

class DeviceClock {
 public:
  // REQUIRES: the backend outlives it. Errors: as Backend::Allocate.
  static absl::StatusOr<DeviceClock> Create(Backend& backend, const ProbeSizes& sizes);

  // Device seconds of one call of `work`, which starts operations and does not wait: the median of
  // a few tries. The device is first given something else to do, whose time is taken off, so that
  // what the host needs to start operations shows only where it cannot keep up.
  double SecondsOf(const std::function<void()>& work) { return TimeOf(work, {}).seconds; }

  // The same of calls that are parts of steps with this key. What the backend would replay has been
  // recorded before the tries that are timed.
  Timing TimeOf(const std::function<void()>& work, const StepPart& part,
                PartOf part_of = PartOf::kTry);

  // Bandwidth: of a copy within the device's memory, read and written bytes both counted. Rates:
  // of a large product with BF16 weights, and with E4M3 weights where the backend has them
  // (rounding rows to E4M3 is part of it). Errors: as Backend::Pack.
  absl::StatusOr<Ceilings> MeasureCeilings();

 private:
  DeviceClock(Backend& backend, const ProbeSizes& sizes) : backend_(backend), sizes_(sizes) {}

  // Errors: UNIMPLEMENTED for weights that the backend does not have; as Backend::Pack.
  absl::StatusOr<double> ProductRate(WeightFormat format);
  void HeadStart();
  double Time(const std::function<void()>& work);

  Backend& backend_;
  ProbeSizes sizes_;
  std::unique_ptr<Buffer> memory_;  // copied from its first half to its second
  int copies_ = 1;                  // of a head start
};

// What a benchmark exits with: 0, 3 where there is no device (which gpu_check.py knows), else 1.
int ExitStatus(const absl::Status& status);

// Device memory full of the block, again and again. REQUIRES: block_bytes is not 0. Errors: as
// Backend::Allocate.
absl::StatusOr<std::unique_ptr<Buffer>> FilledBuffer(Backend& backend, int64_t bytes,
                                                     const void* block, int64_t block_bytes);

}  // namespace catserve

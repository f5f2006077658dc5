#include "bench/device_table.h"

#include <algorithm>
#include <iostream>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"

namespace catserve {

void DeviceTable::PrintCeilings(std::string_view device) {
  absl::StrAppendFormat(&figures_, "copy_bandwidth=%.5g GB/s\nmatrix_rate=%.5g TFLOP/s\n",
                        ceilings_.read_bytes_per_second / 1e9, ceilings_.flops_per_second / 1e12);
  std::string e4m3;
  if (ceilings_.e4m3_ops_per_second > 0) {
    const double rate = ceilings_.e4m3_ops_per_second / 1e12;
    absl::StrAppendFormat(&figures_, "matrix_rate_e4m3=%.5g TFLOP/s\n", rate);
    e4m3 = absl::StrFormat(", %.1f TFLOP/s in E4M3", rate);
  }
  std::cout << absl::StrFormat("%s: copies %.1f GB/s, multiplies %.1f TFLOP/s%s\n",
                               std::string(device), ceilings_.read_bytes_per_second / 1e9,
                               ceilings_.flops_per_second / 1e12, e4m3);
  PrintFigures();
}

void DeviceTable::PrintHead() const {
  std::cout
      << "| operation                        |       us |    GB/s | of copy | TFLOP/s | of rate |"
         " replayed |\n"
         "|----------------------------------|----------|---------|---------|---------|---------|"
         "----------|\n";
}

void DeviceTable::PrintRow(const std::string& name, const DeviceWork& work,
                           std::string_view weights, const Timing& timing) {
  const double bandwidth = work.bytes / timing.seconds;
  const double rate = work.operations / timing.seconds;
  const double of_copy = bandwidth / ceilings_.read_bytes_per_second;
  const double of_rate = rate / ceilings_.OpsPerSecond(weights);
  const std::string replayed =
      timing.replayed ? absl::StrFormat("%.0f%%", 100 * *timing.replayed) : "launched";
  std::cout << absl::StrFormat("| %-32s | %8.2f | %7.1f | %6.1f%% | %7.2f | %6.1f%% | %8s |\n",
                               name, timing.seconds * 1e6, bandwidth / 1e9, 100 * of_copy,
                               rate / 1e12, 100 * of_rate, replayed)
            << std::flush;
  absl::StrAppendFormat(&figures_, "%s.time=%.5g us\n%s.floor_fraction=%.4g 1\n", name,
                        timing.seconds * 1e6, name, std::max(of_copy, of_rate));
  if (timing.replayed) {
    absl::StrAppendFormat(&figures_, "%s.replayed_fraction=%.4g 1\n", name, *timing.replayed);
    replayed_.push_back(*timing.replayed);
  }
}

void DeviceTable::PrintFigures() {
  std::cout << "\n" << std::exchange(figures_, {}) << "\n" << std::flush;
}

void DeviceTable::PrintReplayed() const {
  if (replayed_.empty()) return;
  const double all = std::accumulate(replayed_.begin(), replayed_.end(), 0.0);
  std::cout << absl::StrFormat("kernels.replayed=%.4g 1\n",
                               all / static_cast<double>(replayed_.size()));
}

}  // namespace catserve

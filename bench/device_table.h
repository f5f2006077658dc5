// What the operations of a device took, as a table beside its ceilings and as figures.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "bench/ceilings.h"
#include "bench/device_clock.h"

namespace catserve {

// What one call of an operation reads and writes in memory at least, and computes.
struct DeviceWork {
  double bytes = 0;
  double operations = 0;
};

// Prints to stdout, at once. Not thread-safe.
class DeviceTable {
 public:
  explicit DeviceTable(const Ceilings& ceilings) : ceilings_(ceilings) {}

  // The ceilings, and their figures.
  void PrintCeilings(std::string_view device);
  void PrintHead() const;
  // `weights`: ModelDescription::weight_dtype, of a product.
  void PrintRow(const std::string& name, const DeviceWork& work, std::string_view weights,
                const Timing& timing);
  // The figures since the last time, name=value each: they are there even if no time is left for
  // what comes next.
  void PrintFigures();
  // The mean of what was replayed of all rows.
  void PrintReplayed() const;

 private:
  Ceilings ceilings_;
  std::string figures_;
  std::vector<double> replayed_;  // shares, of operations that have one
};

}  // namespace catserve

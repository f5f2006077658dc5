#include "tests/faults/vitals.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace catserve::testing {

int32_t OpenDescriptors(pid_t pid) {
  int32_t count = 0;
  std::error_code gone;  // one that is closed while they are listed
  for (auto entry = std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/fd"), gone);
       entry != std::filesystem::directory_iterator(); entry.increment(gone)) {
    ++count;
  }
  return count;
}

int64_t ResidentBytes(pid_t pid) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  for (std::string word; status >> word;) {
    if (word != "VmRSS:") continue;
    int64_t kilobytes = 0;
    status >> kilobytes;
    return kilobytes * 1024;
  }
  return 0;
}

int32_t AwaitDescriptors(Stubs& stubs, pid_t pid, int32_t most) {
  AwaitIdle(stubs);
  while (OpenDescriptors(pid) > most) absl::SleepFor(absl::Milliseconds(10));
  return OpenDescriptors(pid);
}

}  // namespace catserve::testing

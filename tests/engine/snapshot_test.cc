// A value published by one thread is read whole by others. Run under TSan, too.
#include "engine/snapshot.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <iterator>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace catserve {
namespace {

// Whole if every part says the same. Long, so that a reader is mostly interrupted within it.
using Parts = std::array<int32_t, 4001>;  // no whole number of words

Parts All(int32_t value) {
  Parts parts;
  parts.fill(value);
  return parts;
}

TEST(Snapshot, GivesWhatWasPublishedLast) {
  Snapshot<Parts> snapshot(All(7));
  EXPECT_EQ(snapshot.Read(), All(7));
  for (int32_t i = 0; i < 5; ++i) {
    snapshot.Publish(All(i));
    EXPECT_EQ(snapshot.Read(), All(i));
  }
}

TEST(Snapshot, IsNeverTorn) {
  Snapshot<Parts> snapshot(All(0));
  std::atomic<bool> done = false;
  std::vector<std::thread> readers;
  for (int i = 0; i < 6; ++i) {
    readers.emplace_back([&] {
      int32_t before = 0;
      while (!done) {
        const Parts parts = snapshot.Read();
        EXPECT_EQ(std::count(parts.begin(), parts.end(), parts[0]), std::ssize(parts));
        EXPECT_GE(parts[0], before);
        before = parts[0];
      }
    });
  }
  const absl::Time enough = absl::Now() + absl::Seconds(10);
  int32_t last = 0;
  while (last < 40'000 && (last < 100 || absl::Now() < enough)) snapshot.Publish(All(++last));
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(snapshot.Read(), All(last));
}

}  // namespace
}  // namespace catserve

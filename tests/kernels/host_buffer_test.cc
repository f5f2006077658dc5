#include "kernels/cpu/host_buffer.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace catserve::cpu {
namespace {

TEST(HostBuffer, IsAlignedAndZero) {
  for (const int64_t bytes : {int64_t{1}, int64_t{1000}, int64_t{3} << 20}) {
    const auto buffer = HostBuffer::Create(bytes).value();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0) << bytes;
    const auto* const data = static_cast<const uint8_t*>(buffer->data());
    EXPECT_TRUE(std::all_of(data, data + bytes, [](uint8_t byte) { return byte == 0; })) << bytes;
  }
}

TEST(HostBuffer, ThatNoMachineHasIsRefusedWithTheNumbers) {
  const auto huge = HostBuffer::Create(std::numeric_limits<int64_t>::max() / 2);
  EXPECT_EQ(huge.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(huge.status().message(), ::testing::HasSubstr("4611686018427387903"));
  EXPECT_EQ(HostBuffer::Create(-1).status().code(), absl::StatusCode::kInvalidArgument);
}

// On a machine of one node this asks for what it gets anyway, but it asks.
TEST(HostBuffer, TakesItsPagesInTurnFromAllMemoryNodes) {
  constexpr unsigned kMost = 1024;
  unsigned long allowed[kMost / 64] = {};
  if (syscall(SYS_get_mempolicy, nullptr, allowed, kMost, nullptr, MPOL_F_MEMS_ALLOWED) != 0) {
    GTEST_SKIP() << "this kernel, or its sandbox, has no memory policies";
  }
  const auto buffer = HostBuffer::Create(int64_t{5} << 20).value();
  for (const int64_t at : {int64_t{0}, (int64_t{5} << 20) - 1}) {
    int mode = -1;
    unsigned long nodes[kMost / 64] = {};
    ASSERT_EQ(syscall(SYS_get_mempolicy, &mode, nodes, kMost,
                      static_cast<char*>(buffer->data()) + at, MPOL_F_ADDR),
              0);
    EXPECT_EQ(mode, MPOL_INTERLEAVE) << at;
    EXPECT_THAT(nodes, ::testing::ElementsAreArray(allowed)) << at;
  }
}

}  // namespace
}  // namespace catserve::cpu

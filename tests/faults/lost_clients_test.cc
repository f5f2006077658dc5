// Clients that vanish: nothing of them is left behind.
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/engine/model/checkpoint_writer.h"
#include "tests/faults/raw_client.h"
#include "tests/faults/vitals.h"
#include "tests/server/calls.h"
#include "tests/server/process.h"
#include "tests/server/text_model.h"

namespace catserve::testing {
namespace {

const std::string kModel = "tests/data/golden/adaptive-tiny";
constexpr char kGenerate[] = "/catserve.v1.Generation/Generate";

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kMemoryIsMeasured = false;  // what is freed stays in quarantine
#else
constexpr bool kMemoryIsMeasured = true;
#endif
constexpr int64_t kResidentGrowthMax = 4 << 20;

std::vector<int32_t> Answer(Stubs& stubs) {
  const Generated got = Generate(stubs, GreedyRequest({5, 6, 7}, 8, 100));
  EXPECT_TRUE(got.status.ok()) << got.status.error_message();
  return got.ids();
}

// A client in the middle of a stream is no more. The kernel ends its connection in one of two ways.
void LoseClient(const std::string& address, int number) {
  v1::GenerateRequest request = GreedyRequest({1, 2, 3, number % 500}, 8, 240);
  request.set_request_id(absl::StrCat("lost-", number));
  RawClient client(address);
  ASSERT_TRUE(client.Send(absl::StrCat(Hello(), CallHeaders(1, kGenerate),
                                       CallMessage(1, request.SerializeAsString()))));
  ASSERT_TRUE(client.Await(FrameType::kData)) << "the stream did not start";
  number % 2 == 0 ? client.Reset() : client.Close();
}

TEST(LostClients, AThousandLeaveNoPageNoStreamNoDescriptorNoMemory) {
  ServedProcess server(kModel, {"--slots=4"});
  ASSERT_TRUE(server.WaitUntilServing());
  Stubs stubs(server.Address());
  const std::vector<int32_t> answer = Answer(stubs);
  const int32_t descriptors = OpenDescriptors(server.pid());
  for (int i = 0; i < 200; ++i) LoseClient(server.Address(), i);  // caches and arenas fill
  AwaitDescriptors(stubs, server.pid(), descriptors);
  const int64_t resident = ResidentBytes(server.pid());

  for (int i = 200; i < 1200; ++i) LoseClient(server.Address(), i);
  EXPECT_LE(AwaitDescriptors(stubs, server.pid(), descriptors), descriptors);
  EXPECT_EQ(GetLoad(stubs).kv_pages_used(), 0);
  const int64_t growth = ResidentBytes(server.pid()) - resident;
  std::printf("1000 lost clients: %d descriptors before and after, resident memory %+.2f MiB\n",
              descriptors, static_cast<double>(growth) / (1 << 20));
  if (kMemoryIsMeasured) {
    EXPECT_LT(growth, kResidentGrowthMax);
  }
  EXPECT_EQ(Answer(stubs), answer);
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);  // no stream holds it up
}

TEST(LostClients, AKilledProcessLeavesNothing) {
  const TempDirectory directory;
  WriteTextModel(directory);
  ServedProcess server(directory.path(), {"--slots=4"});
  ASSERT_TRUE(server.WaitUntilServing());
  Stubs stubs(server.Address());
  AwaitIdle(stubs);
  const int32_t descriptors = OpenDescriptors(server.pid());
  for (int i = 0; i < 10; ++i) {
    Process client({ClientBinary(), "generate", "--server=" + server.Address(), "--json",
                    "--max-tokens=240", "Once upon"});
    ASSERT_NE(client.WaitForOutputPart("tokens"), "");
    client.Signal(SIGKILL);
    client.Wait();
  }
  EXPECT_LE(AwaitDescriptors(stubs, server.pid(), descriptors), descriptors);
}

// -- Storms ---------------------------------------------------------------------------------------

// Calls `turn(caller, i)` so many times on each of some threads.
template <typename Turn>
void Storm(int callers, int turns, const Turn& turn) {
  std::vector<std::thread> threads;
  for (int caller = 0; caller < callers; ++caller) {
    threads.emplace_back([=, &turn] {
      std::mt19937 random(caller);
      for (int i = 0; i < turns; ++i) turn(random);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(LostClients, AStormOfCancelsLeavesNothingAndChangesNoAnswer) {
  ServedProcess server(kModel, {"--slots=4", "--queue_requests_max=16"});
  ASSERT_TRUE(server.WaitUntilServing());
  Stubs stubs(server.Address());
  const std::vector<int32_t> answer = Answer(stubs);
  const int32_t descriptors = OpenDescriptors(server.pid());
  std::atomic<int> cancelled = 0, whole = 0, refused = 0;
  Storm(8, 125, [&](std::mt19937& random) {
    const auto prompt = static_cast<int32_t>(random() % 500);
    GenerateCall call(stubs, GreedyRequest({1, 2, prompt}, 8, 60));
    for (auto reads = random() % 12; reads > 0 && call.Read();) --reads;
    call.Cancel();
    const grpc::StatusCode code = call.Finish().status.error_code();
    if (code == grpc::StatusCode::CANCELLED) ++cancelled;
    if (code == grpc::StatusCode::OK) ++whole;
    if (code == grpc::StatusCode::RESOURCE_EXHAUSTED) ++refused;
  });
  std::printf("1000 cancels: %d ended CANCELLED, %d OK before it came, %d were refused\n",
              cancelled.load(), whole.load(), refused.load());
  EXPECT_EQ(cancelled + whole + refused, 1000);
  EXPECT_GT(cancelled, 500);
  EXPECT_LE(AwaitDescriptors(stubs, server.pid(), descriptors), descriptors);
  EXPECT_EQ(Answer(stubs), answer);
}

TEST(LostClients, DeadlinesInTheQueueAndMidStreamEndExactlyTheirCalls) {
  ServedProcess server(kModel, {"--slots=2", "--queue_requests_max=64"});
  ASSERT_TRUE(server.WaitUntilServing());
  Stubs stubs(server.Address());
  const std::vector<int32_t> answer = Answer(stubs);
  std::atomic<int> in_queue = 0, mid_stream = 0, whole = 0, refused = 0, other = 0;
  Storm(16, 40, [&](std::mt19937& random) {
    const auto longest = random() % 4 == 0 ? 2000 : 60;
    const auto deadline = absl::Now() + absl::Milliseconds(1 + random() % longest);
    GenerateCall call(stubs, GreedyRequest({1, 2, 3}, 8, 200), deadline);
    const Generated got = call.Finish();
    const grpc::StatusCode code = got.status.error_code();
    if (code == grpc::StatusCode::DEADLINE_EXCEEDED) {
      ++(got.events.empty() ? in_queue : mid_stream);
    } else if (code == grpc::StatusCode::OK) {
      ++whole;
    } else {
      ++(code == grpc::StatusCode::RESOURCE_EXHAUSTED ? refused : other);
    }
  });
  std::printf(
      "640 deadlines: %d passed in the queue, %d mid-stream, %d calls were in time, %d "
      "refused as hopeless\n",
      in_queue.load(), mid_stream.load(), whole.load(), refused.load());
  EXPECT_EQ(other, 0);
  EXPECT_GT(in_queue, 0);
  EXPECT_GT(mid_stream, 0);
  AwaitIdle(stubs);
  EXPECT_EQ(GetLoad(stubs).kv_pages_used(), 0);
  EXPECT_EQ(Answer(stubs), answer);
}

}  // namespace
}  // namespace catserve::testing

// Emulated: when parts of steps are replayed, and that a replay is what was recorded. Nothing here
// has run on a GPU.
#include "kernels/cuda/part_graphs.h"

#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "kernels/cuda/emulator/capture.h"
#include "kernels/cuda/emulator/queue.h"
#include "kernels/cuda/staging.h"

namespace catserve::cuda {
namespace {

// Adds the number to what stands there, when the device gets to it.
void LaunchAdd(int32_t* to, int32_t number, Stream stream) {
  emulator::QueueOf(stream).Add([=] { *to += number; });
}

class EmulatedParts : public ::testing::Test {
 protected:
  // A part of one launch, that is done when the call returns.
  void RunAdd(const StepPart& part, int32_t number) {
    Tasks tasks;
    tasks.push_back(MakeTask<LaunchAdd>(&sum_, number));
    graphs_.Run(part, std::move(tasks));
    runtime_->Synchronize();
  }

  const std::unique_ptr<Runtime> runtime_ = Runtime::Create().value();
  PartGraphs graphs_{*runtime_};
  int32_t sum_ = 0;
};

constexpr StepPart kPart{.kind = PartKind::kDecoder, .rows = 8};

TEST_F(EmulatedParts, AreLaunchedOnceThenRecordedThenReplayed) {
  for (const int32_t sum : {7, 14, 21, 28}) {
    RunAdd(kPart, 7);
    EXPECT_EQ(sum_, sum) << "recorded or not, a part runs once";
  }
  RunAdd({.kind = PartKind::kDecoder, .rows = 16}, 7);
  EXPECT_EQ(sum_, 35);
  const PartCounts counts = graphs_.counts();
  EXPECT_EQ(counts.first, 2);
  EXPECT_EQ(counts.recorded, 1);
  EXPECT_EQ(counts.replayed, 2);
  EXPECT_EQ(counts.differed + counts.refused, 0);
}

// What the emulated device is for: it replays recorded arguments, whatever has become of them.
TEST_F(EmulatedParts, ReplayTheArgumentsThatWereRecorded) {
  int32_t number = 7;
  runtime_->BeginCapture();
  LaunchAdd(&sum_, number, runtime_->stream());
  const Graph graph = runtime_->EndCapture().value();
  number = 100;
  runtime_->Synchronize();
  EXPECT_EQ(sum_, 0) << "recording is not running";
  runtime_->Launch(graph);
  runtime_->Synchronize();
  EXPECT_EQ(sum_, 7);
}

TEST_F(EmulatedParts, AnArgumentThatChangesWithoutItsKeyIsNeverReplayed) {
  for (int i = 0; i < 3; ++i) RunAdd(kPart, 7);
  EXPECT_EQ(graphs_.counts().replayed, 1);
  int32_t sum = sum_;
  for (int32_t number = 8; number < 30; ++number) {
    RunAdd(kPart, number);
    EXPECT_EQ(sum_, sum += number);
  }
  EXPECT_EQ(graphs_.counts().differed, 22);
  EXPECT_EQ(graphs_.counts().replayed, 1);
  RunAdd(kPart, 7);
  EXPECT_EQ(graphs_.counts().replayed, 2) << "what has a graph keeps it";
}

TEST_F(EmulatedParts, OfADeviceThatRecordsNothingAreLaunched) {
  emulator::Capture::refused = true;
  for (int i = 0; i < 4; ++i) RunAdd(kPart, 7);
  emulator::Capture::refused = false;
  EXPECT_EQ(sum_, 28);
  EXPECT_EQ(graphs_.counts().refused, 3);
  EXPECT_EQ(graphs_.counts().replayed, 0);
}

TEST_F(EmulatedParts, AreForgottenWithTheMemoryThatTheyUse) {
  for (int i = 0; i < 3; ++i) RunAdd(kPart, 7);
  graphs_.Forget();
  RunAdd(kPart, 7);
  EXPECT_EQ(graphs_.counts().first, 2);
}

// Lists of a part lie where those of its equals lay, whatever else a step sends.
TEST(EmulatedWorkQueue, FixesTheListsOfAPartAndNoOthers) {
  const auto runtime = Runtime::Create().value();
  const auto work = WorkQueue::Create(*runtime, 64 << 10).value();
  const auto send = [&](int64_t ints) {
    Packet packet;
    packet.Add(std::vector<int32_t>(ints, 1));
    return work->Send(packet);
  };
  const auto step = [&](int64_t others) {
    send(others);
    work->BeginPart({.kind = PartKind::kCompressor, .rows = 8, .chunk_size = 16});
    std::vector<const std::byte*> places = {send(8), send(8)};
    work->BeginPart(kPart);
    places.push_back(send(3));
    Packet apart;
    apart.Add(std::vector<int32_t>(others, 1));
    work->SendApart(apart);
    places.push_back(send(3));
    EXPECT_EQ(work->RoomFor(3), 8);
    EXPECT_EQ(work->RoomFor(9), 16);
    EXPECT_EQ(work->RoomFor(0), 0);
    work->EndPart();
    EXPECT_EQ(work->RoomFor(3), 3);
    work->Synchronize();
    work->Reset();
    return places;
  };
  const std::vector<const std::byte*> places = step(10);
  EXPECT_EQ(step(900), places);
  EXPECT_EQ(std::set(places.begin(), places.end()).size(), places.size());
}

}  // namespace
}  // namespace catserve::cuda

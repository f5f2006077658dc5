// One owner's flood beside another's normal use, through the whole server.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/secret.h"
#include "tests/engine/model/checkpoint_writer.h"
#include "tests/server/scripted_server.h"

namespace catserve::testing {
namespace {

constexpr int kFloodCallers = 40;
constexpr int kQueue = 16;
constexpr int kNormalCalls = 50;

std::string TokenOf(const std::string& owner) {
  return absl::StrCat("- owner: ", owner, "\n  sha256: ", absl::BytesToHexString(Sha256(owner)),
                      "\n");
}

// Callers who keep the queue full, whatever they are told.
class Flood {
 public:
  explicit Flood(const std::string& address) : stubs_(address) {
    stubs_.WithToken("flood");
    for (int i = 0; i < kFloodCallers; ++i) callers_.emplace_back([this] { Call(); });
  }
  ~Flood() {
    over_ = true;
    for (std::thread& caller : callers_) caller.join();
  }
  double MeanQueuedSeconds() {
    absl::MutexLock lock(&mutex_);
    return queued_seconds_ / static_cast<double>(served_);
  }
  int64_t refused() const { return refused_; }

 private:
  void Call() {
    while (!over_) {
      const Generated got = Generate(stubs_, GreedyRequest({1, 2, 3}, 4, 20));
      if (got.status.ok()) {
        absl::MutexLock lock(&mutex_);
        ++served_;
        queued_seconds_ += got.finished().usage().queued_seconds();
      } else {
        EXPECT_EQ(got.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
        ++refused_;
      }
    }
  }

  Stubs stubs_;
  std::atomic<bool> over_ = false;
  std::atomic<int64_t> refused_ = 0;
  absl::Mutex mutex_;
  int64_t served_ ABSL_GUARDED_BY(mutex_) = 0;
  double queued_seconds_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::thread> callers_;
};

TEST(Flood, AnothersNormalUseIsNeverRefused) {
  const TempDirectory directory;
  directory.Write("tokens.yaml", TokenOf("flood") + TokenOf("normal"));
  ScriptedServer::Options options;
  options.slots = 4;
  options.queue_requests_max = kQueue;
  options.config.tokens_file = directory.File("tokens.yaml");
  ScriptedServer house(options);
  Stubs normal(house.address());
  normal.WithToken("normal");
  Flood flood(house.address());
  AwaitLoad(normal, [](const v1::GetLoadResponse& load) {
    return load.running_requests() == 4 && load.waiting_requests() >= kQueue - 1;
  });
  double queued = 0;
  for (int i = 0; i < kNormalCalls; ++i) {
    const Generated got = Generate(normal, GreedyRequest({1, 2, 3}, 4, 20));
    ASSERT_TRUE(got.status.ok()) << "call " << i << ": " << got.status.error_message();
    queued += got.finished().usage().queued_seconds();
  }
  const double share = queued / kNormalCalls / flood.MeanQueuedSeconds();
  std::printf(
      "%d normal calls beside a flood by %d callers: none refused, in the queue %.2f times as "
      "long as the flood's; %lld of the flood's were refused\n",
      kNormalCalls, kFloodCallers, share, static_cast<long long>(flood.refused()));
  EXPECT_GT(flood.refused(), 0);
}

}  // namespace
}  // namespace catserve::testing

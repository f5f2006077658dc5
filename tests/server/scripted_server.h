// The real server, in this process and on real sockets, over an executor that says what a test
// wrote down, when the test lets it.
#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "engine/step.h"
#include "server/grpc_server.h"
#include "server/model_card.h"
#include "tests/server/calls.h"

namespace catserve::testing {

// Draws script[i] as token i of every request (choice c of several: shifted by c), over and over;
// its log-probability is -(i + 1) / 8, and the n likeliest ids are 0 .. n - 1 at -1, -2, ...
class ScriptedExecutor : public StepExecutor {
 public:
  void SetScript(std::vector<TokenId> script);

  // From now on a step waits until it is allowed.
  void Hold();
  void Allow(int64_t steps);
  void Release();

  void Launch(const StepPlan& plan) override;
  StepResult Collect() override;
  int PipelineDepth() const override { return 0; }

 private:
  absl::Mutex mutex_;
  std::vector<TokenId> script_ ABSL_GUARDED_BY(mutex_) = {0};
  int64_t allowed_ ABSL_GUARDED_BY(mutex_) = std::numeric_limits<int64_t>::max() / 2;
  StepPlan plan_;
  std::vector<int32_t> logprobs_;  // of the plan's samples, whose params live until Collect only
};

// With a dense twin, and a task "text" that has measured one of three chunk sizes.
ModelCard ScriptedCard();

class ScriptedServer {
 public:
  struct Options {
    int32_t slots = 8;
    int32_t queue_requests_max = 16;
    int64_t kv_pages = 256;
    int32_t request_bytes_max = 1 << 20;
    absl::Duration reader_stall = absl::Seconds(60);
    int32_t reader_lag_tokens_max = 64;
    bool tokenizer = true;
    bool dense = false;
    bool serve = true;  // false: still loading
    ModelCard card = ScriptedCard();
    ServerConfig config;   // without readers: see above
    bool metrics = false;  // the page, which takes two seconds to stop
  };
  ScriptedServer() : ScriptedServer(Options{}) {}
  explicit ScriptedServer(Options options);
  ~ScriptedServer();

  void Serve();
  ScriptedExecutor& executor() { return executor_; }
  Engine& engine() { return *engine_; }
  GrpcServer& server() { return *server_; }
  Metrics& metrics() { return *metrics_; }
  Stubs& stubs() { return *stubs_; }
  std::string address() const;

  // Lets steps go on one by one, a question to the server after each, until nothing runs. Returns
  // how many it took: few after a cancel, as many as tokens were wanted without.
  int StepsUntilIdle();

  // What two requests came to, of which the second arrived when the first had ten tokens to say.
  std::pair<Generated, Generated> Meet(const v1::GenerateRequest& first,
                                       const v1::GenerateRequest& second);

  // Ids of the byte-level tokens of a text: one for each byte.
  std::vector<int32_t> Bytes(const std::string& text) const;
  const Tokenizer& tokenizer() const { return *tokenizer_; }

  static constexpr int32_t kBlockSize = 256;

 private:
  ModelDescription Description() const;

  const Options options_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  ScriptedExecutor executor_;
  std::unique_ptr<Metrics> metrics_;  // outlives the engine, whose last requests tell it their end
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<Stubs> stubs_;
};

// Reloads certificates and tokens until a line of the log has `text`; what the log said.
std::string ReloadUntilLogged(GrpcServer& server, const std::string& text);

}  // namespace catserve::testing

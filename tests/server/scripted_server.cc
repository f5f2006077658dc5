#include "tests/server/scripted_server.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/text/tokenizer.h"
#include "server/quality.h"

namespace catserve::testing {

void ScriptedExecutor::SetScript(std::vector<TokenId> script) {
  absl::MutexLock lock(&mutex_);
  script_ = std::move(script);
}

void ScriptedExecutor::Hold() {
  absl::MutexLock lock(&mutex_);
  allowed_ = 0;
}

void ScriptedExecutor::Allow(int64_t steps) {
  absl::MutexLock lock(&mutex_);
  allowed_ += steps;
}

void ScriptedExecutor::Release() {
  absl::MutexLock lock(&mutex_);
  allowed_ = std::numeric_limits<int64_t>::max() / 2;
}

void ScriptedExecutor::Launch(const StepPlan& plan) {
  plan_ = plan;
  logprobs_.clear();
  for (const Sample& sample : plan.samples) logprobs_.push_back(sample.params->logprobs);
}

StepResult ScriptedExecutor::Collect() {
  const auto allowed = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return allowed_ > 0; };
  absl::MutexLock lock(&mutex_, absl::Condition(&allowed));
  --allowed_;
  StepResult result;
  const auto likeliest = [](int32_t count) {
    std::vector<TokenLogprob> top;
    for (int32_t i = 0; i < count; ++i) top.push_back({i, -static_cast<float>(i + 1)});
    return top;
  };
  for (size_t i = 0; i < plan_.samples.size(); ++i) {
    const Sample& sample = plan_.samples[i];
    const int32_t index = sample.position - sample.prompt_tokens;
    const TokenId id = script_[(index + sample.choice) % script_.size()];
    result.samples.push_back({{id, -static_cast<float>(index + 1) / 8}, likeliest(logprobs_[i])});
  }
  for (const ScoreRow& score : plan_.scores) {
    result.scores.push_back(
        {{score.position % 7, -static_cast<float>(score.position) / 8}, likeliest(score.top_n)});
  }
  return result;
}

ModelCard ScriptedCard() {
  ModelCard card;
  card.dense_twin = DenseTwin{32, 2, 4, 8, std::nullopt};
  card.heldout_bits_per_byte = {{8, 1.25}};
  card.tasks = {{"text", "bits per byte of held-out text", false, {{8, 1.25}}, std::nullopt}};
  return card;
}

ScriptedServer::ScriptedServer(Options options) : options_(options) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Tokenizer::Load("tests/data/tokenizers/bytelevel");
  if (!tokenizer.ok()) throw std::runtime_error(tokenizer.status().ToString());
  tokenizer_ = *std::move(tokenizer);
  metrics_ = *Metrics::Create(options.metrics ? "127.0.0.1:0" : "");
  ServerOptions server;
  server.listen_address = "127.0.0.1:0";
  server.slots = options.slots;
  server.queue_requests_max = options.queue_requests_max;
  server.request_bytes_max = options.request_bytes_max;
  server.config = options.config;
  server.config.readers.stall = options.reader_stall;
  server.config.readers.lag_tokens_max = options.reader_lag_tokens_max;
  server.keepalive = absl::Seconds(30);
  absl::StatusOr<std::unique_ptr<GrpcServer>> started = GrpcServer::Start(server, *metrics_);
  if (!started.ok()) throw std::runtime_error(started.status().ToString());
  server_ = *std::move(started);
  stubs_ = std::make_unique<Stubs>(address());
  if (options.serve) Serve();
}

ScriptedServer::~ScriptedServer() {
  executor_.Release();
  server_.reset();  // before the engine
}

std::string ScriptedServer::address() const { return absl::StrCat("127.0.0.1:", server_->port()); }

ModelDescription ScriptedServer::Description() const {
  ModelDescription description;
  description.kind = options_.dense ? "dense" : "cat";
  description.parameters = 1234;
  description.weight_dtype = "F32";
  description.kv_dtype = "F32";
  description.geometry.kind = options_.dense ? ModelKind::kDense : ModelKind::kCat;
  if (!options_.dense) description.geometry.chunk_sizes = {4, 8, 16};
  description.geometry.block_size = kBlockSize;
  description.geometry.vocab_size = tokenizer_->info().vocab_size;
  description.geometry.bytes_per_entry = 3 * 2 * 2 * 8 * 4;
  description.decoder = {16, 3, 2, 2, 8, 64};
  if (!options_.dense) description.compressor = {8, 2, 2, 2, 4, 32};
  return description;
}

void ScriptedServer::Serve() {
  auto model = std::make_unique<ServedModel>();
  model->description = Description();
  EngineOptions engine;
  engine.slots = options_.slots;
  engine.queue_requests_max = options_.queue_requests_max;
  engine.kv_pages = options_.kv_pages;
  engine.quality = QualityColumns(options_.card, model->description.geometry);
  engine_ = std::make_unique<Engine>(model->description.geometry, executor_, engine);
  model->engine = engine_.get();
  model->name = "scripted";
  model->engine_name = "script";
  if (options_.tokenizer) {
    model->tokenizer = tokenizer_;
    model->token_bytes_max = LongestToken(*tokenizer_);
  } else {
    model->tokenizer_missing = absl::FailedPreconditionError("no tokenizer.json here");
  }
  model->card = options_.card;
  model->slots = options_.slots;
  model->default_budget = *ReadDefaultBudget("auto", *model);
  server_->Serve(std::move(model));
}

int ScriptedServer::StepsUntilIdle() {
  int steps = 0;
  AwaitLoad(*stubs_, [&](const v1::GetLoadResponse& load) {
    if (load.kv_pages_used() == 0 && load.running_requests() <= 0) return true;  // or gone
    // A cancel on its way gets ever more time: how many steps it takes is the server's doing.
    constexpr int kPauseMax = 50;
    absl::SleepFor(absl::Milliseconds(std::min(steps, kPauseMax)));
    executor_.Allow(1);
    ++steps;
    return false;
  });
  return steps;
}

std::pair<Generated, Generated> ScriptedServer::Meet(const v1::GenerateRequest& first,
                                                     const v1::GenerateRequest& second) {
  executor_.Hold();
  GenerateCall early(*stubs_, first);
  executor_.Allow(10);
  EXPECT_TRUE(early.ReadTokens());
  GenerateCall late(*stubs_, second);
  AwaitLoad(*stubs_, [](const auto& load) {
    return load.running_requests() + load.waiting_requests() == 2;
  });
  executor_.Release();
  Generated early_got = early.Finish();
  return {std::move(early_got), late.Finish()};
}

std::vector<int32_t> ScriptedServer::Bytes(const std::string& text) const {
  std::vector<int32_t> ids;
  for (const char byte : text) {
    for (int32_t id = 0; id < tokenizer_->info().vocab_size; ++id) {
      if (tokenizer_->IsSpecial(id) || tokenizer_->TokenBytes(id) != std::string(1, byte)) continue;
      ids.push_back(id);
      break;
    }
  }
  if (ids.size() != text.size()) throw std::runtime_error("a byte has no token");
  return ids;
}

std::string ReloadUntilLogged(GrpcServer& server, const std::string& text) {
  std::string log;
  while (log.find(text) == std::string::npos) {
    ::testing::internal::CaptureStderr();
    server.Reload();
    absl::SleepFor(absl::Milliseconds(5));
    log = ::testing::internal::GetCapturedStderr();
  }
  return log;
}

}  // namespace catserve::testing

// What serve_load draws and what it makes of its records; no clock, no network.
#include <cmath>
#include <string>
#include <vector>

#include "bench/serve_load/call.h"
#include "bench/serve_load/options.h"
#include "bench/serve_load/percentiles.h"
#include "bench/serve_load/report.h"
#include "bench/serve_load/summary.h"
#include "bench/serve_load/workload.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace catserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

TEST(PercentilesTest, AreValuesThatWereMeasured) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Percentiles p = PercentilesOf(values);
  EXPECT_EQ(p.count, 100);
  EXPECT_EQ(p.p50, 50);
  EXPECT_EQ(p.p90, 90);
  EXPECT_EQ(p.p99, 99);
  EXPECT_EQ(p.max, 100);
  EXPECT_EQ(PercentilesOf({7}).p50, 7);
  EXPECT_EQ(PercentilesOf({1, 2}).p50, 1);
  EXPECT_EQ(PercentilesOf({1, 2}).p90, 2);
  EXPECT_EQ(PercentilesOf({}).p99, 0);
}

std::vector<double> AllArrivals(const std::vector<Phase>& phases, uint64_t seed) {
  PoissonArrivals arrivals(phases, seed);
  std::vector<double> all;
  while (const auto at = arrivals.Next()) all.push_back(*at);
  return all;
}

TEST(ArrivalsTest, ComeAsAPoissonProcess) {
  const std::vector<double> all = AllArrivals({{50, 400}}, 3);
  // Counts of a Poisson process vary with the square root of their mean.
  EXPECT_NEAR(static_cast<double>(all.size()), 20'000, 4 * std::sqrt(20'000));
  double before = 0, sum = 0, squares = 0;
  for (const double at : all) {
    ASSERT_GE(at, before);
    sum += at - before;
    squares += (at - before) * (at - before);
    before = at;
  }
  const double mean = sum / static_cast<double>(all.size());
  const double variance = squares / static_cast<double>(all.size()) - mean * mean;
  EXPECT_NEAR(mean, 1.0 / 50, 0.001);
  EXPECT_NEAR(std::sqrt(variance), 1.0 / 50, 0.001);  // exponential gaps: deviation equals mean
}

TEST(ArrivalsTest, FollowEachPhaseAndAreSilentAtRateZero) {
  const std::vector<double> all = AllArrivals({{10, 100}, {0, 50}, {100, 100}}, 5);
  int first = 0, silent = 0, last = 0;
  for (const double at : all) ++(at < 100 ? first : at < 150 ? silent : last);
  EXPECT_NEAR(first, 1000, 4 * std::sqrt(1000));
  EXPECT_EQ(silent, 0);
  EXPECT_NEAR(last, 10'000, 4 * std::sqrt(10'000));
  EXPECT_LT(all.back(), 250);
}

TEST(ArrivalsTest, ASeedMeansTheSameLoadAndAnotherMeansAnother) {
  EXPECT_EQ(AllArrivals({{5, 20}}, 1), AllArrivals({{5, 20}}, 1));
  EXPECT_NE(AllArrivals({{5, 20}}, 1), AllArrivals({{5, 20}}, 2));
}

WorkloadSpec Spec() {
  WorkloadSpec spec;
  spec.lengths = {{100, 10}, {200, 20}};
  spec.budgets = *ReadBudgets("8:0.5,auto8-32:0.3,32:0.2");
  spec.vocabulary = 1000;
  return spec;
}

TEST(WorkloadTest, DrawsEachBudgetAsOftenAsItsShareSays) {
  Workload workload(Spec());
  int fixed8 = 0, range = 0, fixed32 = 0;
  for (int i = 0; i < 10'000; ++i) {
    const BudgetChoice budget = workload.Next().budget;
    if (budget.kind == BudgetChoice::Kind::kAuto) {
      EXPECT_EQ(budget.chunk_size_min, 8);
      EXPECT_EQ(budget.chunk_size_max, 32);
      ++range;
    } else {
      ++(budget.chunk_size_min == 8 ? fixed8 : fixed32);
    }
  }
  EXPECT_NEAR(fixed8, 5000, 200);
  EXPECT_NEAR(range, 3000, 200);
  EXPECT_NEAR(fixed32, 2000, 200);
}

TEST(WorkloadTest, OtherBudgetsAndCancelsLeaveLengthsAndPromptsAsTheyWere) {
  WorkloadSpec other = Spec();
  other.budgets = *ReadBudgets("none");
  other.cancel_share = 0.5;
  other.slow_share = 0.5;
  Workload a(Spec()), b(other);
  int cancels = 0, slow = 0;
  for (int i = 0; i < 1000; ++i) {
    const Shot x = a.Next(), y = b.Next();
    ASSERT_EQ(x.lengths.prompt, y.lengths.prompt);
    ASSERT_EQ(x.lengths.generated, y.lengths.generated);
    ASSERT_EQ(a.Prompt(x), b.Prompt(y));
    EXPECT_EQ(x.cancel_after, 0);
    EXPECT_LE(y.cancel_after, y.lengths.generated);
    cancels += y.cancel_after > 0 ? 1 : 0;
    slow += y.slow ? 1 : 0;
  }
  EXPECT_NEAR(cancels, 500, 64);
  EXPECT_NEAR(slow, 500, 64);
}

TEST(WorkloadTest, PromptsShareTheirPrefixAndNothingElse) {
  WorkloadSpec spec = Spec();
  spec.shared_prefix = 40;
  Workload workload(spec);
  const std::vector<int32_t> a = workload.Prompt(workload.Next());
  const std::vector<int32_t> b = workload.Prompt(workload.Next());
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 40, b.begin()));
  int same = 0;
  for (int i = 40; i < 100; ++i) same += a[i] == b[i] ? 1 : 0;
  EXPECT_LT(same, 5);
  for (const int32_t id : a) EXPECT_TRUE(id >= 0 && id < 1000);
}

TEST(WorkloadTest, TextsThatAreNoWorkloadAreRefusedWithARemedy) {
  for (const char* list : {"", "8", "8:x", "0:4", "4:0", "4:4:4", "4:4,", "2000000:1"}) {
    EXPECT_EQ(ReadLengths(list).status().code(), absl::StatusCode::kInvalidArgument) << list;
  }
  for (const char* text : {"", "# nothing\n", "5\n", "5 6 7\n", "a b\n", "-1 5\n"}) {
    EXPECT_EQ(ReadLengthsFile(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  for (const char* list : {"", "8:0.5", "8:0.5,16:0.6", "8:nan", "auto32-8", "auto8", "x", "-8",
                           "8:-1,16:2", "auto8-16-32"}) {
    EXPECT_EQ(ReadBudgets(list).status().code(), absl::StatusCode::kInvalidArgument) << list;
  }
  for (const char* list : {"", "1", "0:5", "1:0", "nan:5", "1:nan", "1:4000", "-1:5", "1:inf"}) {
    EXPECT_EQ(ReadPhases(list).status().code(), absl::StatusCode::kInvalidArgument) << list;
  }
  const auto lengths = ReadLengthsFile("# lengths\n100 5\n\n 200\t6 # long\n");
  ASSERT_TRUE(lengths.ok());
  EXPECT_EQ((*lengths)[1].prompt, 200);
  EXPECT_EQ((*lengths)[1].generated, 6);
}

TEST(OptionsTest, LoadGoesToThisMachineAlone) {
  for (const char* good : {"127.0.0.1:80", "localhost:8500", "[::1]:9"}) {
    EXPECT_TRUE(CheckLoopback(good).ok()) << good;
  }
  for (const char* bad : {"10.0.0.1:80", "example.com:80", "127.0.0.1", "localhost:0", "",
                          "127.0.0.1.example.com:80", "localhost:70000", "unix:/x:1"}) {
    EXPECT_EQ(CheckLoopback(bad).code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(OptionsTest, LengthsAndChunkSizesMustFitTheModel) {
  v1::GetModelResponse model;
  model.set_context_limit(100);
  model.set_vocabulary_size(50);
  model.add_chunk_sizes()->set_chunk_size(8);
  LoadOptions options;
  options.workload.lengths = {{90, 10}};
  options.workload.budgets = *ReadBudgets("8:0.5,auto:0.5");
  EXPECT_TRUE(FitToModel(model, options).ok());
  EXPECT_EQ(options.workload.vocabulary, 50);
  options.workload.lengths = {{90, 11}};
  EXPECT_THAT(FitToModel(model, options).message(), HasSubstr("90:11"));
  options.workload.lengths = {{90, 10}};
  options.workload.budgets = *ReadBudgets("16");
  EXPECT_THAT(FitToModel(model, options).message(), HasSubstr("16"));
  options.workload.budgets = *ReadBudgets("auto");
  model.clear_chunk_sizes();
  EXPECT_THAT(FitToModel(model, options).message(), HasSubstr("dense"));
}

// A call that arrived at `arrival` and whose tokens came at `tokens`.
CallRecord Call(double arrival, std::vector<double> tokens) {
  CallRecord call;
  call.arrival = call.sent = arrival;
  call.token_times = std::move(tokens);
  call.end = call.token_times.empty() ? arrival : call.token_times.back();
  call.reason = v1::FINISH_REASON_LENGTH;
  call.chunk_size_first = call.chunk_size_last = 8;
  call.shot.lengths = {100, 3};
  return call;
}

LoadOptions OpenLoop() {
  LoadOptions options;
  options.phases = {{1, 5}, {2, 5}};
  options.duration_seconds = 10;
  return options;
}

TEST(SummaryTest, ARequestIsGoodIfItsOwnP99Is) {
  const CallRecord call = Call(1, {1.2, 1.3, 1.6});  // first token 200 ms, worst gap 300 ms
  EXPECT_TRUE(MeetsObjective(call, {}));
  EXPECT_TRUE(MeetsObjective(call, {201, 301}));
  EXPECT_FALSE(MeetsObjective(call, {199, 301}));
  EXPECT_FALSE(MeetsObjective(call, {201, 299}));
  CallRecord ended = call;
  ended.reason = v1::FINISH_REASON_KV_LIMIT;
  EXPECT_FALSE(MeetsObjective(ended, {}));
  ended = call;
  ended.code = grpc::StatusCode::RESOURCE_EXHAUSTED;
  EXPECT_FALSE(MeetsObjective(ended, {}));
}

TEST(SummaryTest, RatesAreOverTheTimeOfSendingAndPhasesApart) {
  RunResult run;
  run.calls = {Call(1, {2, 3, 4}), Call(4, {5, 6, 7}), Call(6, {9, 10.5, 11})};
  const Summary s = Summarise(OpenLoop(), run);
  EXPECT_EQ(s.requests, 3);
  EXPECT_EQ(s.finished, 3);
  EXPECT_DOUBLE_EQ(s.offered_per_second, 0.3);
  EXPECT_DOUBLE_EQ(s.finished_per_second, 0.2);  // the last ended after the window
  EXPECT_DOUBLE_EQ(s.tokens_per_second, 0.7);
  EXPECT_DOUBLE_EQ(s.good_per_second, 0.3);
  EXPECT_DOUBLE_EQ(s.ttft_ms.p50, 1000);
  EXPECT_EQ(s.inter_token_ms.count, 6);
  ASSERT_EQ(s.phases.size(), 2);
  EXPECT_EQ(s.phases[0].requests, 2);
  EXPECT_DOUBLE_EQ(s.phases[0].tokens_per_second, 0.6);
  EXPECT_DOUBLE_EQ(s.phases[1].tokens_per_second, 0.8);
  EXPECT_DOUBLE_EQ(s.phases[1].finished_per_second, 0.2);
}

TEST(SummaryTest, TheWarmUpIsLeftOut) {
  LoadOptions options = OpenLoop();
  options.warmup_seconds = 4;
  RunResult run;
  run.calls = {Call(1, {2, 3, 4}), Call(4, {5, 6, 7})};
  const Summary s = Summarise(options, run);
  EXPECT_EQ(s.requests, 1);
  EXPECT_DOUBLE_EQ(s.window_seconds, 6);
  EXPECT_DOUBLE_EQ(s.tokens_per_second, 4.0 / 6);
}

TEST(SummaryTest, EveryRequestIsCountedOnceByItsEnd) {
  RunResult run;
  run.calls.assign(6, Call(1, {2, 3, 4}));
  run.calls[1].code = grpc::StatusCode::RESOURCE_EXHAUSTED;
  run.calls[1].reason = v1::FINISH_REASON_UNSPECIFIED;
  run.calls[2].reason = v1::FINISH_REASON_KV_LIMIT;
  run.calls[3].code = grpc::StatusCode::CANCELLED;
  run.calls[3].cancelled = true;
  run.calls[3].reason = v1::FINISH_REASON_UNSPECIFIED;
  run.calls[4].code = grpc::StatusCode::CANCELLED;
  run.calls[4].cut = true;
  run.calls[4].reason = v1::FINISH_REASON_UNSPECIFIED;
  run.calls[5].sent_at_all = false;
  run.calls[0].budget_changes = 2;
  run.calls[0].chunk_size_last = 32;
  run.samples = {{.at = 1, .server_running = 3, .kv_pages_used = 7, .preemptions = 2},
                 {.at = 2, .server_running = 2, .kv_pages_used = 9, .preemptions = 5}};
  const Summary s = Summarise(OpenLoop(), run);
  EXPECT_EQ(s.requests, 6);
  EXPECT_EQ(s.finished, 1);
  EXPECT_EQ(s.failed, 2);
  EXPECT_EQ(s.cancelled, 1);
  EXPECT_EQ(s.cut, 1);
  EXPECT_EQ(s.not_sent, 1);
  EXPECT_THAT(s.codes,
              ElementsAre(Pair("CANCELLED", 2), Pair("OK", 2), Pair("RESOURCE_EXHAUSTED", 1)));
  EXPECT_THAT(s.reasons, ElementsAre(Pair("KV_LIMIT", 1), Pair("LENGTH", 1)));
  EXPECT_THAT(s.chunk_sizes_last, ElementsAre(Pair(8, 4), Pair(32, 1)));
  EXPECT_EQ(s.budget_changes, 2);
  EXPECT_EQ(s.kv_pages_peak, 9);
  EXPECT_EQ(s.running_peak, 3);
  EXPECT_EQ(s.preemptions, 3);  // those before the run are not its own
}

TEST(SummaryTest, AClosedLoopIsOverWithItsLastRequest) {
  LoadOptions options;
  options.concurrency = 1;
  options.duration_seconds = 100;
  RunResult run;
  run.calls = {Call(0, {1, 2, 3}), Call(3, {4, 5, 6})};
  const Summary s = Summarise(options, run);
  EXPECT_NEAR(s.window_seconds, 6, 1e-6);
  EXPECT_NEAR(s.tokens_per_second, 1, 1e-6);
  EXPECT_EQ(s.finished, 2);
}

TEST(ReportTest, FiguresAreOneALine) {
  RunResult run;
  run.calls = {Call(1, {2, 3, 4})};
  const std::string lines = Figures("load", Summarise(OpenLoop(), run));
  EXPECT_THAT(lines, HasSubstr("load.goodput=0.1 requests/s\n"));
  EXPECT_THAT(lines, HasSubstr("load.ttft_p50=1000 ms\n"));
  EXPECT_THAT(Table(Summarise(OpenLoop(), run)), HasSubstr("1 finished, 1 good"));
}

TEST(CallTest, TheMessageSaysWhatTheShotSays) {
  Shot shot;
  shot.lengths = {3, 7};
  shot.seed = 9;
  shot.budget = {BudgetChoice::Kind::kAuto, 8, 32, 1};
  v1::GenerateRequest request = MakeRequest(shot, {1, 2, 3}, 0, false);
  EXPECT_THAT(request.prompt().token_ids().ids(), ElementsAre(1, 2, 3));
  EXPECT_EQ(request.budget().auto_().chunk_size_max(), 32);
  EXPECT_EQ(request.stopping().max_tokens(), 7);
  EXPECT_TRUE(request.stopping().ignore_eos());
  EXPECT_TRUE(request.sampling().has_temperature());
  shot.budget.kind = BudgetChoice::Kind::kNone;
  EXPECT_FALSE(MakeRequest(shot, {1}, 0, false).has_budget());
}

}  // namespace
}  // namespace catserve

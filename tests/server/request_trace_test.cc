// The way of each request: its id, what is kept of it, and the page that shows it.
#include "server/request_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "server/debug_page.h"
#include "server/request_meter.h"
#include "server/trace_context.h"
#include "tests/server/process.h"
#include "tests/server/scripted_server.h"

namespace catserve::testing {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr char kTraceparent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceContext, TakesTheIdOfWhatTheStandardAllows) {
  EXPECT_EQ(TraceIdOf(kTraceparent), kTrace);
  EXPECT_EQ(TraceIdOf("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"), kTrace);
  // A later version says more behind what version 00 says.
  EXPECT_EQ(TraceIdOf("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what.will.be"),
            kTrace);
}

TEST(TraceContext, IgnoresEverythingElse) {
  const std::string trace(kTrace);
  for (const std::string& hostile : {
           std::string(),
           std::string("00"),
           trace,
           "00-" + trace + "-00f067aa0ba902b7",
           "00-" + trace + "-00f067aa0ba902b7-01-more",
           "00-" + trace + "-00f067aa0ba902b7-01 ",
           " 00-" + trace + "-00f067aa0ba902b7-01",
           "ff-" + trace + "-00f067aa0ba902b7-01",
           "cc-" + trace + "-00f067aa0ba902b7-01what",
           "00-" + trace + "-0000000000000000-01",
           std::string("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
           std::string("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
           "00_" + trace + "_00f067aa0ba902b7_01",
           "00-" + trace + "-00f067aa0ba902bg-01",
           "0x-" + trace + "-00f067aa0ba902b7-01",
           std::string("00-<script>alert(1)</script>aaaaaaaa-00f067aa0ba902b7-01"),
           "cc-" + trace + "-00f067aa0ba902b7-01-" + std::string(10000, 'a'),
       }) {
    EXPECT_EQ(TraceIdOf(hostile), std::nullopt) << hostile;
  }
  std::string changed = kTraceparent;
  for (char& c : changed) {  // no byte may be anything
    const char kept = std::exchange(c, '\0');
    EXPECT_EQ(TraceIdOf(changed), std::nullopt);
    c = kept;
  }
}

TEST(TraceContext, MakesNewIds) {
  EXPECT_THAT(NewTraceId(), MatchesRegex("[0-9a-f]+"));
  EXPECT_THAT(NewTraceId(), SizeIs(32));
  EXPECT_NE(NewTraceId(), NewTraceId());
}

const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);

RequestTrace Ended(const std::string& id, absl::Time received, absl::Duration took) {
  RequestTrace trace{.method = "Generate", .request_id = id, .received = received};
  trace.started = received + took / 4;
  trace.first_result = received + took / 2;
  trace.computed = trace.ended = received + took;
  trace.code = "OK";
  trace.reason = "length";
  return trace;
}

std::vector<std::string> Ids(const std::vector<RequestTrace>& traces) {
  std::vector<std::string> ids;
  for (const RequestTrace& trace : traces) ids.push_back(trace.request_id);
  return ids;
}

TEST(RequestTraces, KeepTheSlowestOfTheLastMinutesAndNoMore) {
  RequestTraces traces;
  traces.Keep(Ended("old", kStart, absl::Hours(1)));
  const absl::Time later = kStart + absl::Hours(2);
  for (int i = 0; i < 1000; ++i) {
    const int shuffled = i * 37 % 1000;
    traces.Keep(Ended(absl::StrCat(shuffled), later, absl::Milliseconds(shuffled)));
  }
  const auto slowest = traces.ReadSlowest(later + absl::Seconds(1));
  ASSERT_THAT(slowest, SizeIs(RequestTraces::kSlowestMax));
  for (size_t i = 0; i < slowest.size(); ++i)
    EXPECT_EQ(slowest[i].request_id, absl::StrCat(999 - i));
  EXPECT_THAT(traces.ReadSlowest(later + RequestTraces::kRecent + absl::Seconds(2)), SizeIs(0));
}

TEST(RequestTraces, ShowTheOldestOfThoseUnderWay) {
  RequestTraces traces;
  std::vector<std::shared_ptr<LiveTrace>> live;
  for (int i = 0; i < 5; ++i) live.push_back(traces.Begin({.request_id = absl::StrCat(i)}));
  traces.Remove(*live[1]);
  const auto running = traces.ReadRunning(3);
  EXPECT_EQ(running.count, 4);
  EXPECT_EQ(Ids(running.oldest), (std::vector<std::string>{"0", "2", "3"}));
}

TEST(RequestTraces, ARequestThatChangesForEverIsBounded) {
  RequestTrace trace;
  for (int i = 0; i < 1000; ++i) trace.Mark({.kind = TraceMark::Kind::kPaused});
  EXPECT_THAT(trace.marks, SizeIs(kTraceMarksMax));
  EXPECT_EQ(trace.marks_left_out, 1000 - kTraceMarksMax);
}

TEST(RequestMeter, TellsTheWayOfARequest) {
  const auto metrics = *Metrics::Create("");
  const auto at = [](double seconds) { return kStart + absl::Seconds(seconds); };
  RequestMeter meter(*metrics, {.method = "Generate", .request_id = "way", .received = kStart});
  const auto now = [&] { return metrics->traces().ReadRunning(1).oldest.at(0); };
  EXPECT_EQ(StateOf(now()), "queued");
  meter.Observe({PreemptedEvent{}, at(1)});
  EXPECT_EQ(StateOf(now()), "preempted");
  meter.Observe({StartedEvent{.prompt_tokens = 9, .cached_tokens = 4, .chunk_size = 4}, at(2)});
  EXPECT_EQ(StateOf(now()), "prefill");
  meter.Observe({TokensEvent{.tokens = {SampleResult{}}}, at(3)});
  EXPECT_EQ(StateOf(now()), "decode");
  meter.Observe({BudgetChangedEvent{4, 8, 10}, at(4)});
  meter.Observe({PreemptedEvent{}, at(5)});
  meter.Observe({TokensEvent{.tokens = {SampleResult{}}}, at(6)});
  meter.Paused(true, at(7));
  EXPECT_EQ(StateOf(now()), "paused");
  meter.Paused(false, at(8));
  EXPECT_EQ(now().chunk_size, 8);
  EXPECT_EQ(now().generated_tokens, 2);
  meter.Observe({FinishedEvent{.reason = FinishReason::kStopToken}, at(9)});
  EXPECT_EQ(StateOf(now()), "reading");
  meter.End(grpc::StatusCode::OK, at(10));
  EXPECT_EQ(metrics->traces().ReadRunning(1).count, 0);
  const auto kept = metrics->traces().ReadSlowest(at(11));
  ASSERT_THAT(kept, SizeIs(1));
  EXPECT_EQ(kept[0].marks[1].kind, TraceMark::Kind::kBudgetChanged);
  EXPECT_THAT(kept[0].marks, SizeIs(5));
  EXPECT_EQ(kept[0].reason, "stop");
  EXPECT_EQ(*kept[0].first_result - kept[0].received, absl::Seconds(3));
}

TEST(RequestMeter, ARefusedRequestLeavesNoTrace) {
  const auto metrics = *Metrics::Create("");
  { RequestMeter meter(*metrics, {.method = "Generate", .request_id = "refused"}); }
  EXPECT_EQ(metrics->traces().ReadRunning(1).count, 0);
  EXPECT_THAT(metrics->traces().ReadSlowest(absl::UnixEpoch()), SizeIs(0));
}

// -- The page -------------------------------------------------------------------------------------

DebugView View() {
  DebugView view{.now = kStart + absl::Seconds(10), .model = "tiny"};
  view.geometry = {.kind = ModelKind::kCat, .chunk_sizes = {4, 8}, .bytes_per_entry = 64};
  RequestTrace running{.method = "Generate", .request_id = "now", .prompt_tokens = 40};
  running.received = kStart;
  running.started = kStart + absl::Seconds(1);
  running.first_result = kStart + absl::Seconds(2);
  running.chunk_size = 8;
  running.generated_tokens = 3;
  view.running = {{running}, 7};
  view.slowest = {Ended("then", kStart, absl::Seconds(8))};
  view.slowest[0].Mark({TraceMark::Kind::kBudgetChanged, kStart + absl::Seconds(6), 4, 8});
  return view;
}

TEST(DebugPage, DrawsTimelines) {
  const std::string html = DebugHtml(View());
  EXPECT_THAT(html, AllOf(HasSubstr("7 under way; the oldest 1"), HasSubstr(">now<"),
                          HasSubstr(">decode<"), HasSubstr("10.00 s")));
  // Eight seconds: two queued, two prefilling, four decoding.
  EXPECT_THAT(html, HasSubstr("class=\"queue\" style=\"left:0.00%;width:25.00%\""));
  EXPECT_THAT(html, HasSubstr("class=\"prefill\" style=\"left:25.00%;width:25.00%\""));
  EXPECT_THAT(html, HasSubstr("class=\"decode\" style=\"left:50.00%;width:50.00%\""));
  EXPECT_THAT(html, HasSubstr("class=\"budget\" style=\"left:75.00%\" title=\"C 4 to 8\""));
}

TEST(DebugPage, SaysTheSameAsJson) {
  const json page = json::parse(DebugJson(View()));
  const json& running = page.at("running").at(0);
  EXPECT_EQ(page.at("running_count"), 7);
  EXPECT_EQ(running.at("state"), "decode");
  EXPECT_EQ(running.at("age_seconds"), 10);
  // 43 tokens at chunks of 8: 6 summaries, the separator and 3 tokens, in one page.
  EXPECT_EQ(running.at("kv_bytes_by_length"), 16 * 64);
  EXPECT_EQ(running.at("started"), 1);
  EXPECT_EQ(running.at("computed"), nullptr);
  const json& slowest = page.at("slowest").at(0);
  EXPECT_EQ(slowest.at("ended"), 8);
  EXPECT_EQ(slowest.at("marks").at(0).at("to_chunk_size"), 8);
}

TEST(DebugPage, WhatNamesSayStaysText) {
  DebugView view = View();
  const std::string hostile = "\"><script>alert('x')</script>&\xff";
  view.model = hostile;
  view.running.oldest[0].request_id = view.running.oldest[0].owner = hostile;
  view.slowest[0].trace_id = hostile;
  const std::string html = DebugHtml(view);
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, HasSubstr("&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;"));
  EXPECT_FALSE(json::parse(DebugJson(view)).empty());
}

// -- In a server ----------------------------------------------------------------------------------

json ReadPage(ScriptedServer& house) {
  const std::string answer =
      HttpGet(absl::StrCat("127.0.0.1:", house.metrics().port()), "/debug/requests?format=json");
  return json::parse(answer.substr(answer.find("\r\n\r\n")));
}

TEST(DebugPage, ShowsARequestWhileItRunsAndWhenItHasEnded) {
  ScriptedServer house(ScriptedServer::Options{.metrics = true});
  house.executor().Hold();
  v1::GenerateRequest request = GreedyRequest({1, 2, 3, 4, 5}, 4, 20);
  request.set_request_id("mine");
  grpc::ClientContext context;
  context.AddMetadata("traceparent", kTraceparent);
  const auto reader = house.stubs().generation->Generate(&context, request);
  house.executor().Allow(3);
  v1::GenerateResponse response;
  while (reader->Read(&response) && !response.has_tokens()) continue;
  const json running = ReadPage(house).at("running").at(0);
  EXPECT_EQ(running.at("request_id"), "mine");
  EXPECT_EQ(running.at("trace_id"), kTrace);
  EXPECT_EQ(running.at("state"), "decode");
  EXPECT_EQ(running.at("prompt_tokens"), 5);
  EXPECT_EQ(running.at("chunk_size"), 4);
  house.executor().Release();
  while (reader->Read(&response)) continue;
  ASSERT_TRUE(reader->Finish().ok());
  const json page = ReadPage(house);
  EXPECT_EQ(page.at("running_count"), 0);
  const json& slowest = page.at("slowest").at(0);
  EXPECT_EQ(slowest.at("trace_id"), kTrace);
  EXPECT_EQ(slowest.at("code"), "OK");
  EXPECT_EQ(slowest.at("reason"), "length");
  EXPECT_EQ(slowest.at("generated_tokens"), 20);
  EXPECT_EQ(slowest.at("prefill_pieces"), 1);
  EXPECT_EQ(slowest.at("chunks_compressed"), response.finished().usage().chunks_compressed());
  const std::string address = absl::StrCat("127.0.0.1:", house.metrics().port());
  EXPECT_THAT(HttpGet(address, "/debug/requests"),
              AllOf(HasSubstr("200 OK"), HasSubstr("text/html"), HasSubstr(">mine<"),
                    HasSubstr("Content-Security-Policy: default-src 'none'")));
  EXPECT_THAT(HttpGet(address, "/debug/requests?format=exe"), HasSubstr("400 Bad Request"));
  EXPECT_THAT(HttpGet(address, "/debug/requests/x"), HasSubstr("404 Not Found"));
  EXPECT_THAT(HttpGet(address, "/"), HasSubstr("404 Not Found"));
}

TEST(DebugPage, AHostileTraceparentIsAsGoodAsNone) {
  ScriptedServer house(ScriptedServer::Options{.metrics = true});
  for (const std::vector<std::string>& sent :
       {std::vector<std::string>{"<script>alert(1)</script>"}, {kTraceparent, kTraceparent}}) {
    grpc::ClientContext context;
    for (const std::string& value : sent) context.AddMetadata("traceparent", value);
    const auto reader = house.stubs().generation->Generate(&context, GreedyRequest({1}, 4, 1));
    v1::GenerateResponse response;
    while (reader->Read(&response)) continue;
    EXPECT_TRUE(reader->Finish().ok());
  }
  const json page = ReadPage(house);
  EXPECT_THAT(page.at("slowest"), SizeIs(2));
  for (const json& trace : page.at("slowest")) {
    const std::string id = trace.at("trace_id");
    EXPECT_THAT(id, AllOf(SizeIs(32), Not(kTrace)));
    EXPECT_THAT(id,
                Each(::testing::AnyOf(::testing::AllOf(::testing::Ge('0'), ::testing::Le('9')),
                                      ::testing::AllOf(::testing::Ge('a'), ::testing::Le('f')))));
  }
}

}  // namespace
}  // namespace catserve::testing

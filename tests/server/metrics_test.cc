// The metrics page: what it says, that docs/operations.md tells all of it, and that nobody waits
// for whom while it is read.
#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "server/load_page.h"
#include "server/page_server.h"
#include "tests/server/process.h"
#include "tests/server/scripted_server.h"

namespace catserve::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Address(ScriptedServer& house) {
  return absl::StrCat("127.0.0.1:", house.metrics().port());
}

// A page as one scrape gets it; empty if its body is not as long as it says.
std::string Scrape(const std::string& address) {
  const std::string answer = HttpGet(address, "/metrics");
  const std::vector<std::string> parts = absl::StrSplit(answer, absl::MaxSplits("\r\n\r\n", 1));
  if (parts.size() != 2 || !absl::StartsWith(answer, "HTTP/1.1 200 OK")) return "";
  const std::string length = absl::StrCat("Content-Length: ", parts[1].size(), "\r\n");
  return absl::StrContains(answer, length) ? parts[1] : "";
}

// The value of the sample that `name` (labels and all) names; -1 if it is not on the page.
double ValueOf(const std::string& page, const std::string& name) {
  const size_t at = absl::StrCat("\n", page).find(absl::StrCat("\n", name, " "));
  double value = -1;
  if (at == std::string::npos) return value;
  const size_t from = at + name.size() + 1;
  return absl::SimpleAtod(page.substr(from, page.find('\n', from) - from), &value) ? value : -1;
}

TEST(Metrics, ThePageTellsWhatHappened) {
  ScriptedServer house;
  v1::GenerateRequest request = GreedyRequest({1, 2, 3}, 4, 20);
  ASSERT_TRUE(Generate(house.stubs(), request).status.ok());
  request.mutable_budget()->set_chunk_size(7);
  ASSERT_FALSE(Generate(house.stubs(), request).status.ok());
  v1::ScoreRequest score;
  score.mutable_text()->mutable_token_ids()->mutable_ids()->Resize(16, 1);
  score.set_chunk_size(8);
  ASSERT_TRUE(Score(house.stubs(), score).status.ok());
  const std::string page = house.metrics().Text();
  const std::map<std::string, double> wanted = {
      {"catserve_ready", 1},
      {"catserve_build_info{engine=\"script\",version=\"0.1.0\"}", 1},
      {"catserve_model_info{context_limit=\"256\",kind=\"cat\",kv_dtype=\"F32\",name=\"scripted\","
       "parameters=\"1234\",weight_dtype=\"F32\"}",
       1},
      {"catserve_requests_total{code=\"OK\",method=\"Generate\"}", 1},
      {"catserve_requests_total{code=\"INVALID_ARGUMENT\",method=\"Generate\"}", 1},
      {"catserve_requests_total{code=\"OK\",method=\"Score\"}", 1},
      {"catserve_choices_finished_total{reason=\"length\"}", 1},
      {"catserve_choices_finished_total{reason=\"stop\"}", 0},
      {"catserve_prompt_tokens_total{chunk_size=\"4\"}", 3},
      {"catserve_prompt_tokens_total{chunk_size=\"8\"}", 16},
      {"catserve_cached_prompt_tokens_total{chunk_size=\"4\"}", 0},
      {"catserve_generated_tokens_total{chunk_size=\"4\"}", 20},
      {"catserve_generated_tokens_total{chunk_size=\"16\"}", 0},
      {"catserve_time_to_first_token_seconds_count", 1},
      {"catserve_inter_token_seconds_count", 19},
      {"catserve_inter_token_seconds_bucket{le=\"1800\"}", 19},
      {"catserve_queue_seconds_count{method=\"Generate\"}", 1},
      {"catserve_prefill_seconds_count{method=\"Score\"}", 1},
      {"catserve_decode_seconds_count{method=\"Generate\"}", 1},
      {"catserve_request_seconds_count{method=\"Score\"}", 1},
      {"catserve_running_requests", 0},
      {"catserve_waiting_requests", 0},
      {"catserve_waiting_requests_capacity", 16},
      {"catserve_paused_requests", 0},
      {"catserve_kv_pages_used", 0},
      {"catserve_kv_pages_capacity", 256},
      {"catserve_kv_usage_ratio", 0},
      {"catserve_kv_used_bytes", 0},
      {"catserve_live_tokens", 0},
      {"catserve_chunks_compressed_total", 5 + 1},  // of Score's two the last predicts nothing
      {"catserve_prefix_cache_query_tokens_total", 3},
      {"catserve_prefix_cache_hit_tokens_total", 0},
      {"catserve_preemptions_total", 0},
      {"catserve_budget_changes_total{direction=\"coarser\"}", 0},
      {"catserve_budget_changes_total{direction=\"finer\"}", 0},
      {"catserve_step_seconds_total{part=\"compress\"}", 0},  // the script takes no time
  };
  for (const auto& [name, value] : wanted) EXPECT_EQ(ValueOf(page, name), value) << name;
  EXPECT_THAT(page, HasSubstr("catserve_inter_token_seconds_bucket{le=\"0.0005\"}"));
  EXPECT_EQ(ValueOf(page, "catserve_step_rows_count"), ValueOf(page, "catserve_steps_total"));
  EXPECT_EQ(ValueOf(page, "catserve_step_rows_sum"), ValueOf(page, "catserve_decoder_rows_total"));
  EXPECT_GT(ValueOf(page, "catserve_steps_total"), 20);
}

TEST(LoadPage, TellsHowPartsOfStepsReachedTheDevice) {
  const EngineLoad load{
      .parts = {.replayed = 5, .recorded = 4, .first = 3, .differed = 2, .refused = 1}};
  std::map<std::string, double> parts;
  for (const prometheus::MetricFamily& family : LoadFamilies(load, {})) {
    if (family.name != "catserve_step_parts_total") continue;
    for (const auto& metric : family.metric) parts[metric.label[0].value] = metric.counter.value;
  }
  EXPECT_THAT(parts, ::testing::UnorderedElementsAre(
                         ::testing::Pair("replayed", 5), ::testing::Pair("recorded", 4),
                         ::testing::Pair("first", 3), ::testing::Pair("differed", 2),
                         ::testing::Pair("refused", 1)));
}

TEST(Metrics, MemoryStandsBesideWhatDenseModelsWouldHold) {
  ScriptedServer house;
  house.executor().Hold();
  GenerateCall call(house.stubs(), GreedyRequest(std::vector<int32_t>(100, 1), 16, 50));
  // Steps are held back: the page answers while one computes, and tells what it holds.
  std::string page;
  do {
    page = house.metrics().Text();
  } while (ValueOf(page, "catserve_live_tokens") != 100);
  EXPECT_EQ(ValueOf(page, "catserve_running_requests"), 1);
  // 7 summaries, the separator and 4 tokens in one page of 16 entries, where dense models have 100
  // entries in 7 pages; one entry is 3 layers' 2 x 2 heads x 8 x 4 bytes, the twin's 2 x 2 x 4 x 8
  // x 4.
  EXPECT_EQ(ValueOf(page, "catserve_kv_pages_used"), 1);
  EXPECT_EQ(ValueOf(page, "catserve_kv_usage_ratio"), 1.0 / 256);
  EXPECT_EQ(ValueOf(page, "catserve_kv_used_bytes"), 16 * 384);
  EXPECT_EQ(ValueOf(page, "catserve_kv_dense_same_width_bytes"), 7 * 16 * 384);
  EXPECT_EQ(ValueOf(page, "catserve_kv_dense_twin_bytes"), 7 * 16 * 512);
  house.executor().Release();
  EXPECT_TRUE(call.Finish().status.ok());
}

// "| `catserve_x` | counter | `a`, `b` | ..." as {"catserve_x", "counter {a,b}"}.
std::map<std::string, std::string> TableOfTheDocumentation() {
  std::map<std::string, std::string> table;
  std::ifstream file(CATSERVE_SOURCE_DIR "/docs/operations.md");
  for (std::string line; std::getline(file, line);) {
    if (!absl::StartsWith(line, "| `catserve_")) continue;
    const std::vector<std::string> cells = absl::StrSplit(line, '|');
    std::set<std::string> labels;
    const std::vector<std::string> pieces = absl::StrSplit(cells[3], '`');
    for (size_t i = 1; i < pieces.size(); i += 2) labels.insert(pieces[i]);
    const std::string name = std::vector<std::string>(absl::StrSplit(cells[1], '`'))[1];
    table[name] =
        absl::StrCat(absl::StripAsciiWhitespace(cells[2]), " {", absl::StrJoin(labels, ","), "}");
  }
  return table;
}

// The same of a page. A histogram's own label and the endings of its samples do not count.
std::map<std::string, std::string> TableOfThePage(const std::string& page) {
  std::map<std::string, std::string> types;
  std::map<std::string, std::set<std::string>> labels;
  std::string family;
  for (const absl::string_view line : absl::StrSplit(page, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words[0] == "#") family = words[2];
    if (words[1] == "TYPE") types[family] = words[3];
    if (words[0] == "#") continue;
    labels[family];
    const size_t open = line.find('{');
    if (open == absl::string_view::npos) continue;
    const absl::string_view list = line.substr(open + 1, line.rfind('}') - open - 1);
    for (const absl::string_view label : absl::StrSplit(list, "\",")) {
      const std::string key(label.substr(0, label.find('=')));
      if (key != "le") labels[family].insert(key);
    }
  }
  std::map<std::string, std::string> table;
  for (const auto& [name, keys] : labels) {
    table[name] = absl::StrCat(types[name], " {", absl::StrJoin(keys, ","), "}");
  }
  return table;
}

TEST(Metrics, TheDocumentationListsThePageAndNothingElse) {
  ScriptedServer house;
  const auto documented = TableOfTheDocumentation();
  EXPECT_GT(documented.size(), 30);
  EXPECT_EQ(TableOfThePage(house.metrics().Text()), documented);
}

TEST(Metrics, FiftyScrapesASecondCutNoStream) {
  ScriptedServer house(ScriptedServer::Options{.metrics = true});
  std::vector<int32_t> script(200);
  for (int32_t i = 0; i < std::ssize(script); ++i) script[i] = i;
  house.executor().SetScript(script);
  absl::Notification enough;
  std::vector<std::thread> callers;
  std::atomic<int> streams = 0;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      do {
        const Generated got = Generate(house.stubs(), GreedyRequest({1, 2, 3}, 8, 200));
        EXPECT_TRUE(got.status.ok()) << got.status.error_message();
        EXPECT_EQ(got.ids(), script);
        ++streams;
      } while (!enough.HasBeenNotified());
    });
  }
  constexpr int kScrapes = 100;
  double before = 0;
  for (int i = 0; i < kScrapes; ++i) {
    const std::string page = Scrape(Address(house));
    EXPECT_THAT(page, AllOf(StartsWith("# HELP "), ::testing::EndsWith("\n")));
    const double tokens = ValueOf(page, "catserve_generated_tokens_total{chunk_size=\"8\"}");
    EXPECT_GE(tokens, before);
    EXPECT_EQ(ValueOf(page, "catserve_step_rows_sum"),
              ValueOf(page, "catserve_decoder_rows_total"));
    before = tokens;
    absl::SleepFor(absl::Milliseconds(20));
  }
  enough.Notify();
  for (std::thread& caller : callers) caller.join();
  const std::string page = Scrape(Address(house));
  EXPECT_EQ(ValueOf(page, "catserve_generated_tokens_total{chunk_size=\"8\"}"), 200 * streams);
  EXPECT_EQ(ValueOf(page, "catserve_requests_total{code=\"OK\",method=\"Generate\"}"), streams);
}

// Connections that hold a thread each, as silent ones do until they are closed.
TEST(PageServer, SixteenCallersThatHangDelayNoScrape) {
  absl::Notification enough;
  absl::BlockingCounter hanging(16);
  const auto hang = [&](const std::string&) {
    hanging.DecrementCount();
    enough.WaitForNotification();
    return PageAnswer{.content_type = "text/plain", .body = "late"};
  };
  const auto scrape = [](const std::string&) {
    return PageAnswer{.content_type = "text/plain", .body = "at once"};
  };
  const auto pages = PageServer::Start("127.0.0.1:0", {{"/hang", hang}, {"/metrics", scrape}});
  ASSERT_TRUE(pages.ok()) << pages.status();
  const std::string address = absl::StrCat("127.0.0.1:", (*pages)->port());
  std::vector<std::thread> callers;
  for (int i = 0; i < 16; ++i) {
    callers.emplace_back([&] { EXPECT_THAT(HttpGet(address, "/hang"), HasSubstr("late")); });
  }
  hanging.Wait();
  EXPECT_THAT(HttpGet(address, "/metrics"), HasSubstr("at once"));
  enough.Notify();
  for (std::thread& caller : callers) caller.join();
}

TEST(Metrics, ATakenAddressIsAClearError) {
  const auto first = Metrics::Create("127.0.0.1:0");
  ASSERT_TRUE(first.ok());
  const auto second = Metrics::Create("127.0.0.1:" + std::to_string((*first)->port()));
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()),
              AllOf(HasSubstr("--metrics_address"), HasSubstr("another server")));
}

}  // namespace
}  // namespace catserve::testing

// What a client of Generate sees, word for word.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/server/scripted_server.h"

namespace catserve::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

v1::GenerateRequest Ask(int32_t max_tokens) { return GreedyRequest({1, 2, 3}, 8, max_tokens); }

TEST(Stream, StartsTellsTokensAndFinishesOnce) {
  ScriptedServer house;
  house.executor().SetScript(house.Bytes("hello"));
  v1::GenerateRequest request = Ask(5);
  request.set_request_id("my-request");
  request.mutable_sampling()->set_seed(0);  // zero is a value
  const Generated got = Generate(house.stubs(), request);

  ASSERT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.started().request_id(), "my-request");
  EXPECT_EQ(got.started().prompt_tokens(), 3);
  EXPECT_EQ(got.started().chunk_size(), 8);
  EXPECT_EQ(got.started().seed(), 0);
  EXPECT_EQ(got.text(), "hello");
  EXPECT_EQ(got.ids(), house.Bytes("hello"));
  EXPECT_THAT(got.info(), SizeIs(0));
  EXPECT_EQ(got.choice_end().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(got.choice_end().generated_tokens(), 5);
  EXPECT_FALSE(got.choice_end().has_stop());
  const v1::Usage usage = got.finished().usage();
  EXPECT_EQ(got.finished().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(usage.prompt_tokens(), 3);
  EXPECT_EQ(usage.generated_tokens(), 5);
  EXPECT_EQ(usage.chunk_size(), 8);
  // 8 tokens are one page of 16 entries; the twin has 2 layers of 4 heads of 8, in F32.
  EXPECT_EQ(usage.kv_bytes_dense_twin(), 16 * 2 * 2 * 4 * 8 * 4);
  EXPECT_EQ(usage.kv_bytes_dense_same_width(), 16 * 384);
  AwaitIdle(house.stubs());
}

TEST(Stream, AnUnsetSeedIsDrawnAndTold) {
  ScriptedServer house;
  const uint64_t first = Generate(house.stubs(), Ask(1)).started().seed();
  const uint64_t second = Generate(house.stubs(), Ask(1)).started().seed();
  EXPECT_NE(first, second);
}

TEST(Stream, AStopStringAcrossTokensEndsTheTextBeforeIt) {
  ScriptedServer house;
  house.executor().SetScript(house.Bytes("one two three"));
  v1::GenerateRequest request = Ask(13);
  request.mutable_stopping()->add_stop("zzz");
  request.mutable_stopping()->add_stop(" two");
  const Generated got = Generate(house.stubs(), request);

  ASSERT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.text(), "one");
  EXPECT_EQ(got.ids(), house.Bytes("one two"));
  EXPECT_EQ(got.choice_end().reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(got.choice_end().stop(), " two");
  EXPECT_FALSE(got.choice_end().has_stop_token_id());
  EXPECT_EQ(got.choice_end().generated_tokens(), 7);
  EXPECT_EQ(got.finished().usage().generated_tokens(), 7);
  EXPECT_EQ(got.finished().reason(), v1::FINISH_REASON_STOP);
  AwaitIdle(house.stubs());
}

TEST(Stream, IncludeStopKeepsIt) {
  ScriptedServer house;
  house.executor().SetScript(house.Bytes("one two three"));
  v1::GenerateRequest request = Ask(13);
  request.mutable_stopping()->add_stop(" two");
  request.mutable_stopping()->set_include_stop(true);
  EXPECT_EQ(Generate(house.stubs(), request).text(), "one two");
}

TEST(Stream, MinTokensKeepsStopStringsAway) {
  ScriptedServer house;
  house.executor().SetScript(house.Bytes("ababab"));
  v1::GenerateRequest request = Ask(6);
  request.mutable_stopping()->add_stop("ab");
  request.mutable_stopping()->set_min_tokens(2);
  EXPECT_EQ(Generate(house.stubs(), request).text(), "ab");  // the second "ab" stops
}

TEST(Stream, HeldBackTextIsFlushedAtTheEnd) {
  ScriptedServer house;
  house.executor().SetScript(house.Bytes("an e\xCC"));  // ends inside a character
  v1::GenerateRequest request = Ask(5);
  request.mutable_stopping()->add_stop("never seen");
  const Generated got = Generate(house.stubs(), request);
  EXPECT_EQ(got.text(), "an e\xEF\xBF\xBD");
  EXPECT_EQ(got.ids(), house.Bytes("an e\xCC"));
}

TEST(Stream, AStopTokenEndsTheTextWithoutItself) {
  ScriptedServer house;
  house.executor().SetScript(house.Bytes("abc"));
  v1::GenerateRequest request = Ask(3);
  const int32_t stop = house.Bytes("b")[0];
  request.mutable_stopping()->add_stop_token_ids(stop);
  const Generated got = Generate(house.stubs(), request);
  EXPECT_EQ(got.text(), "a");
  EXPECT_EQ(got.ids(), house.Bytes("ab"));
  EXPECT_EQ(got.choice_end().reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(got.choice_end().stop_token_id(), stop);
}

TEST(Stream, ChoicesAreToldApart) {
  ScriptedServer house;
  house.executor().SetScript(house.Bytes("xyz"));
  v1::GenerateRequest request = Ask(3);
  request.mutable_sampling()->set_n(3);
  request.mutable_stopping()->add_stop("zx");
  const Generated got = Generate(house.stubs(), request);
  ASSERT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.text(0), "xyz");
  EXPECT_EQ(got.text(1), "y");  // y, then "zx" stops it
  EXPECT_EQ(got.text(2), "");   // "zx" at once
  EXPECT_EQ(got.choice_end(0).reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(got.choice_end(1).stop(), "zx");
  EXPECT_EQ(got.choice_end(2).generated_tokens(), 2);
  EXPECT_EQ(got.finished().usage().generated_tokens(), 3 + 3 + 2);
  AwaitIdle(house.stubs());
}

TEST(Stream, LogProbabilitiesComeWithTheirTokens) {
  ScriptedServer house;
  house.executor().SetScript(house.Bytes("ab"));
  v1::GenerateRequest request = Ask(2);
  request.set_logprobs(2);
  const std::vector<v1::TokenInfo> info = Generate(house.stubs(), request).info();
  ASSERT_THAT(info, SizeIs(2));
  EXPECT_EQ(info[1].token_id(), house.Bytes("b")[0]);
  EXPECT_EQ(info[1].logprob(), -0.25f);
  ASSERT_EQ(info[1].top_size(), 2);
  EXPECT_EQ(info[1].top(1).token_id(), 1);
  EXPECT_EQ(info[1].top(1).logprob(), -2.0f);
}

TEST(Stream, TextPromptsAreTokenised) {
  ScriptedServer house;
  v1::GenerateRequest request;
  request.mutable_prompt()->set_text("hello there");
  request.mutable_stopping()->set_max_tokens(0);  // only reads the prompt
  const size_t tokens = house.tokenizer().Encode("hello there", false)->size();
  const bool has_bos = house.tokenizer().info().bos_id >= 0;
  Generated got = Generate(house.stubs(), request);
  ASSERT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.started().prompt_tokens(), tokens + (has_bos ? 1 : 0));
  EXPECT_EQ(got.finished().usage().generated_tokens(), 0);
  request.mutable_prompt()->set_add_bos(false);
  EXPECT_EQ(Generate(house.stubs(), request).started().prompt_tokens(), tokens);
}

TEST(Stream, CancellingMidStreamFreesEveryPage) {
  ScriptedServer house;
  house.executor().Hold();
  GenerateCall call(house.stubs(), Ask(200));
  house.executor().Allow(5);
  ASSERT_TRUE(call.ReadTokens());
  EXPECT_GT(GetLoad(house.stubs()).kv_pages_used(), 0);
  call.Cancel();
  EXPECT_EQ(call.Finish().status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_LT(house.StepsUntilIdle(), 150);  // not the 180 or more that were left
}

TEST(Stream, ALiveRequestIdIsTakenAndAFinishedOneFree) {
  ScriptedServer house;
  house.executor().Hold();
  v1::GenerateRequest request = Ask(20);
  request.set_request_id("twice");
  GenerateCall first(house.stubs(), request);
  house.executor().Allow(2);
  ASSERT_TRUE(first.ReadTokens());
  const grpc::Status second = Generate(house.stubs(), request).status;
  EXPECT_EQ(second.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_THAT(second.error_message(), HasSubstr("request_id \"twice\""));
  house.executor().Release();
  EXPECT_TRUE(first.Finish().status.ok());
}

TEST(Stream, ARequestIdIsFreeOnceItsEndWasRead) {
  ScriptedServer house;
  v1::GenerateRequest request = Ask(2);
  request.set_request_id("again");
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(Generate(house.stubs(), request).status.ok()) << "call " << i;
  }
}

TEST(Stream, AbortEndsWithFinishedAndUsage) {
  ScriptedServer house;
  house.executor().Hold();
  v1::GenerateRequest request = Ask(200);
  request.set_request_id("to-abort");
  GenerateCall call(house.stubs(), request);
  house.executor().Allow(3);
  ASSERT_TRUE(call.ReadTokens());
  EXPECT_TRUE(Abort(house.stubs(), "to-abort"));
  EXPECT_TRUE(Abort(house.stubs(), "to-abort"));  // idempotent
  house.executor().Release();
  const Generated got = call.Finish();
  ASSERT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.finished().reason(), v1::FINISH_REASON_ABORTED);
  EXPECT_EQ(got.finished().usage().generated_tokens(), got.ids().size());
  AwaitIdle(house.stubs());
  EXPECT_FALSE(Abort(house.stubs(), "unknown"));
}

TEST(Stream, ADeadlineEndsAlsoAQueuedRequest) {
  ScriptedServer house(ScriptedServer::Options{.slots = 1});
  house.executor().Hold();
  GenerateCall running(house.stubs(), Ask(200));
  AwaitLoad(house.stubs(), [](const auto& load) { return load.running_requests() == 1; });
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  const auto queued = house.stubs().generation->Generate(&context, Ask(20));
  v1::GenerateResponse response;
  while (queued->Read(&response)) continue;
  EXPECT_EQ(queued->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  running.Cancel();
  house.executor().Release();
  AwaitIdle(house.stubs());
}

TEST(Stream, ATimeLimitFinishesGently) {
  ScriptedServer house;
  house.executor().Hold();
  v1::GenerateRequest request = Ask(200);
  request.set_time_limit_ms(20);
  GenerateCall call(house.stubs(), request);
  // Steps one by one until the limit has passed in the engine's eyes.
  std::atomic<bool> ended = false;
  std::thread steps([&] {
    while (!ended) {
      house.executor().Allow(1);
      GetLoad(house.stubs());  // takes about as long as a step
    }
  });
  const Generated got = call.Finish();
  ended = true;
  steps.join();
  house.executor().Release();
  ASSERT_TRUE(got.status.ok()) << got.status.error_message();
  const v1::FinishReason reason = got.finished().reason();
  // A machine quick enough to make 200 tokens in 20 ms has a right to finish.
  EXPECT_TRUE(reason == v1::FINISH_REASON_TIME_LIMIT || got.ids().size() == 200) << reason;
}

TEST(Stream, AFullQueueSaysWhenToTryAgain) {
  ScriptedServer house(ScriptedServer::Options{.slots = 1, .queue_requests_max = 1});
  house.executor().Hold();
  GenerateCall running(house.stubs(), Ask(4));
  AwaitLoad(house.stubs(), [](const auto& load) { return load.running_requests() == 1; });
  GenerateCall waiting(house.stubs(), Ask(4));
  AwaitLoad(house.stubs(), [](const auto& load) { return load.waiting_requests() == 1; });
  const Generated refused = Generate(house.stubs(), Ask(4));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("queue is full"));
  EXPECT_GT(std::stoi(refused.pushback), 0);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("in " + refused.pushback + " ms"));
  EXPECT_THAT(refused.events, SizeIs(0));
  house.executor().Release();
  EXPECT_TRUE(running.Finish().status.ok());
  EXPECT_TRUE(waiting.Finish().status.ok());
}

TEST(Stream, AReaderThatDoesNotReadStallsNobody) {
  ScriptedServer house(ScriptedServer::Options{.slots = 2});
  v1::GenerateRequest heavy = Ask(200);
  heavy.set_logprobs(20);
  GenerateCall slow(house.stubs(), heavy);  // nobody reads it
  for (int i = 0; i < 10; ++i) {
    const Generated quick = Generate(house.stubs(), Ask(50));
    ASSERT_TRUE(quick.status.ok()) << quick.status.error_message();
    EXPECT_THAT(quick.ids(), SizeIs(50));
  }
  const Generated got = slow.Finish();
  EXPECT_THAT(got.ids(), SizeIs(200));
  EXPECT_THAT(got.info(), SizeIs(200));
}

TEST(Stream, AReaderThatNeverReadsIsCancelledInTheEnd) {
  ScriptedServer house(ScriptedServer::Options{.reader_stall = absl::Seconds(2)});
  v1::GenerateRequest heavy = Ask(200);  // far more bytes than the transport buffers
  heavy.mutable_sampling()->set_n(8);
  heavy.set_logprobs(20);
  heavy.set_request_id("heavy");
  Stubs narrow(house.address(), /*buffer_bytes=*/4096);
  GenerateCall stuck(narrow, heavy);
  ASSERT_TRUE(stuck.Read());  // `started`, and nothing after it
  AwaitIdle(house.stubs());
  while (Abort(house.stubs(), "heavy")) continue;
  EXPECT_EQ(stuck.Finish().status.error_code(), grpc::StatusCode::CANCELLED);
}

TEST(Stream, ScoreTellsEveryPositionInOrder) {
  ScriptedServer house;
  v1::ScoreRequest request;
  const std::vector<int32_t> text = house.Bytes("abcdefghij");
  request.mutable_text()->mutable_token_ids()->mutable_ids()->Add(text.begin(), text.end());
  request.set_chunk_size(4);
  request.set_top_logprobs(3);
  const Scored scored = Score(house.stubs(), request);
  ASSERT_TRUE(scored.status.ok()) << scored.status.error_message();
  ASSERT_THAT(scored.tokens, SizeIs(9));
  double sum = 0;
  for (int position = 1; position < 10; ++position) {
    EXPECT_EQ(scored.tokens[position - 1].logprob(), -position / 8.0f);
    EXPECT_EQ(scored.tokens[position - 1].top_size(), 3);
    sum -= position / 8.0;
  }
  EXPECT_EQ(scored.started.chunk_size(), 4);
  EXPECT_EQ(scored.finished.scored_tokens(), 9);
  EXPECT_DOUBLE_EQ(scored.finished.sum_logprob(), sum);
  EXPECT_EQ(scored.finished.usage().prompt_tokens(), 10);
  AwaitIdle(house.stubs());
}

TEST(Text, TokenizeAndDetokenizeAreInverse) {
  ScriptedServer house;
  const std::string text = "Hello, wörld!";
  grpc::ClientContext first, second;
  v1::TokenizeRequest request;
  request.set_text(text);
  v1::TokenizeResponse ids;
  ASSERT_TRUE(house.stubs().generation->Tokenize(&first, request, &ids).ok());
  v1::DetokenizeRequest back;
  *back.mutable_token_ids() = ids.token_ids();
  v1::DetokenizeResponse response;
  ASSERT_TRUE(house.stubs().generation->Detokenize(&second, back, &response).ok());
  EXPECT_EQ(response.text(), text);
  EXPECT_EQ(response.text_bytes(), text);
}

}  // namespace
}  // namespace catserve::testing

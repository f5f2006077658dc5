// A bound on quality: what the card's values leave of the dial, and what a client sees of it.
#include "server/quality.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/scripted_server.h"

namespace catserve::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

constexpr int64_t kPageBytes = 16 * 384;  // entries of a page, bytes of an entry

ModelGeometry Cat() {
  return {.kind = ModelKind::kCat,
          .chunk_sizes = {4, 8, 16},
          .block_size = 256,
          .vocab_size = 100,
          .bytes_per_entry = 64};
}

// A text gains from large chunks what recall loses. Chunk size 8 loses 2.5% of the one and 3% of
// the other.
ModelCard MeasuredCard() {
  ModelCard card;
  card.tasks = {
      {"text", "bits per byte", false, {{4, 1.8}, {8, 1.64}, {16, 1.6}, {64, 0.1}}, 1.55},
      {"recall", "accuracy", true, {{4, 1.0}, {8, 0.97}, {16, 0.4}}, 1.0},
      {"short", "accuracy", true, {{8, 0.5}}, std::nullopt},
      {"elsewhere", "accuracy", true, {{64, 0.5}}, std::nullopt},
  };
  return card;
}

// -- What the card's values mean ------------------------------------------------------------------

TEST(Quality, ALossIsAFractionOfTheBestValueAmongTheSizesOffered) {
  const ModelCard card = MeasuredCard();
  const QualityColumn text = LossOf(card.tasks[0], Cat());
  EXPECT_THAT(text, ElementsAre(Pair(4, ::testing::DoubleNear(0.125, 1e-9)),
                                Pair(8, ::testing::DoubleNear(0.025, 1e-9)), Pair(16, 0)));
  const QualityColumn recall = LossOf(card.tasks[1], Cat());
  EXPECT_THAT(recall, ElementsAre(Pair(4, 0), Pair(8, ::testing::DoubleNear(0.03, 1e-9)),
                                  Pair(16, ::testing::DoubleNear(0.6, 1e-9))));
  EXPECT_THAT(LossOf(card.tasks[3], Cat()), IsEmpty());
}

TEST(Quality, ABestValueOfZeroIsNoDivisionByIt) {
  const QualityTask errors{"errors", "errors", false, {{4, 0}, {8, 0}, {16, 0.5}}, std::nullopt};
  EXPECT_THAT(LossOf(errors, Cat()), ElementsAre(Pair(4, 0), Pair(8, 0), Pair(16, 1e6)));
  const QualityTask nothing{"nothing", "accuracy", true, {{4, 0}, {8, 0}}, std::nullopt};
  EXPECT_THAT(LossOf(nothing, Cat()), ElementsAre(Pair(4, 0), Pair(8, 0)));
}

TEST(Quality, WithoutATaskTheFirstRanksIfItMeasuredEverySizeOffered) {
  ModelCard card = MeasuredCard();
  const std::vector<QualityColumn> columns = QualityColumns(card, Cat());
  ASSERT_THAT(columns, SizeIs(5));
  EXPECT_EQ(columns[0], LossOf(card.tasks[0], Cat()));
  EXPECT_EQ(columns[1], columns[0]);
  EXPECT_EQ(columns[2], LossOf(card.tasks[1], Cat()));
  card.tasks[0].values.erase(16);
  EXPECT_THAT(QualityColumns(card, Cat())[0], IsEmpty());
  EXPECT_THAT(QualityColumns(ModelCard(), Cat()), ElementsAre(IsEmpty()));
}

std::vector<int32_t> Left(double loss_max, double eight_of_a_best_of_four_fifths) {
  ServedModel model;
  model.description.geometry = Cat();
  model.card.tasks = {
      {"a", "b", true, {{4, 0.8}, {8, eight_of_a_best_of_four_fifths}}, std::nullopt}};
  v1::AutoBudget message;
  message.set_quality_loss_max(loss_max);
  Budget budget;
  EXPECT_TRUE(ReadQuality(message, model, budget).ok());
  EXPECT_EQ(budget.quality_column, 1);
  return budget.among;
}

TEST(Quality, AValueThatLiesOnTheBoundIsWithinIt) {
  EXPECT_THAT(Left(0.25, 0.6), ElementsAre(4, 8));  // in binary fractions 1 - 0.6 / 0.8 > 0.25
  EXPECT_THAT(Left(0.25, 0.5999), ElementsAre(4));
  EXPECT_THAT(Left(0, 0.7999), ElementsAre(4));
  EXPECT_THAT(Left(0, 0.8), ElementsAre(4, 8));
  EXPECT_THAT(Left(1, 0), ElementsAre(4, 8));
}

// -- Through the server ---------------------------------------------------------------------------

v1::GenerateRequest AskAuto(int32_t max_tokens) {
  v1::GenerateRequest request = GreedyRequest({1, 2, 3}, 0, max_tokens);
  request.mutable_budget()->mutable_auto_();
  return request;
}

v1::GenerateRequest Ask(const std::string& task, double loss_max, int32_t max_tokens = 4) {
  v1::GenerateRequest request = AskAuto(max_tokens);
  request.mutable_budget()->mutable_auto_()->set_quality_task(task);
  request.mutable_budget()->mutable_auto_()->set_quality_loss_max(loss_max);
  return request;
}

class QualityBound : public ::testing::Test {
 protected:
  QualityBound() : house_({.card = MeasuredCard()}) {}

  // The chunk size that a request gets in an empty server.
  int32_t StartsAt(const v1::GenerateRequest& request) {
    const Generated got = Generate(house_.stubs(), request);
    EXPECT_TRUE(got.status.ok()) << got.status.error_message();
    return got.started().chunk_size();
  }

  ScriptedServer house_;
};

TEST_F(QualityBound, RanksByTheTasksColumnWithinTheBoundAndTheRange) {
  EXPECT_EQ(StartsAt(AskAuto(4)), 16);  // the first task's best
  EXPECT_EQ(StartsAt(Ask("text", 0)), 16);
  EXPECT_EQ(StartsAt(Ask("text", 0.03)), 16);
  EXPECT_EQ(StartsAt(Ask("recall", 0)), 4);
  EXPECT_EQ(StartsAt(Ask("recall", 1)), 4);
  EXPECT_EQ(StartsAt(Ask("short", 1)), 8);  // the others were not measured

  v1::GenerateRequest request = Ask("text", 0.03);  // 8 and 16
  request.mutable_budget()->mutable_auto_()->set_chunk_size_max(8);
  EXPECT_EQ(StartsAt(request), 8);
  request = Ask("recall", 0.03);  // 4 and 8
  request.mutable_budget()->mutable_auto_()->set_chunk_size_min(8);
  EXPECT_EQ(StartsAt(request), 8);
  request.mutable_budget()->mutable_auto_()->clear_quality_task();  // text: 8 and 16
  EXPECT_EQ(StartsAt(request), 16);
  request = AskAuto(4);
  request.mutable_budget()->mutable_auto_()->set_quality_task("recall");  // ranks, bounds nothing
  EXPECT_EQ(StartsAt(request), 4);
  request.mutable_budget()->mutable_auto_()->set_chunk_size_min(16);
  EXPECT_EQ(StartsAt(request), 16);
}

TEST_F(QualityBound, ThatTheRangeExcludesSaysWhatItAllows) {
  v1::GenerateRequest request = Ask("recall", 0.03);
  request.mutable_budget()->mutable_auto_()->set_chunk_size_min(16);
  const grpc::Status status = Generate(house_.stubs(), request).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(),
              HasSubstr("budget.auto.chunk_size_min 16 to budget.auto.chunk_size_max 16 holds none "
                        "of the chunk sizes 4, 8 that budget.auto.quality_loss_max"));
}

TEST_F(QualityBound, ByATaskThatTheCardHasNotNamesThoseItHas) {
  const grpc::Status status = Generate(house_.stubs(), Ask(std::string(9999, 'x'), 0.1)).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("allowed: text, recall, short, elsewhere"));
  EXPECT_LT(status.error_message().size(), 200u);
}

TEST_F(QualityBound, WithoutMeasuredValuesIsAPreconditionThatNamesTheCommand) {
  const grpc::Status none = Generate(house_.stubs(), Ask("elsewhere", 0.1)).status;
  EXPECT_EQ(none.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(none.error_message(), HasSubstr("no value of task elsewhere"));

  ScriptedServer bare({.card = ModelCard()});
  v1::GenerateRequest request = AskAuto(4);
  EXPECT_TRUE(Generate(bare.stubs(), request).status.ok());
  request.mutable_budget()->mutable_auto_()->set_quality_loss_max(1);
  const grpc::Status status = Generate(bare.stubs(), request).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), AllOf(HasSubstr("budget.auto"), HasSubstr("quality_loss_max"),
                                            HasSubstr("make evaluate MODEL=")));
}

TEST_F(QualityBound, IsKeptWhereOnlyAnotherSizeWouldKeepTheMemorysBound) {
  // 240 tokens hold 4 pages at chunk size 4, 3 at 8 and 2 at 16.
  v1::GenerateRequest request = Ask("recall", 0.03, 240);
  request.mutable_budget()->mutable_auto_()->set_kv_bytes_max(3 * kPageBytes);
  EXPECT_EQ(StartsAt(request), 8);
  request.mutable_budget()->mutable_auto_()->set_kv_bytes_max(2 * kPageBytes);
  const Generated full = Generate(house_.stubs(), request);
  EXPECT_EQ(full.choice_end().reason(), v1::FINISH_REASON_KV_LIMIT);
  EXPECT_EQ(full.finished().usage().chunk_size(), 8);
}

TEST_F(QualityBound, IsToldByGetModelAsAColumnForEachTask) {
  grpc::ClientContext context;
  v1::GetModelResponse model;
  ASSERT_TRUE(house_.stubs().models->GetModel(&context, {}, &model).ok());
  ASSERT_EQ(model.quality_tasks_size(), 4);
  const v1::QualityTask& text = model.quality_tasks(0);
  EXPECT_EQ(text.name(), "text");
  EXPECT_EQ(text.measure(), "bits per byte");
  EXPECT_FALSE(text.higher_is_better());
  EXPECT_EQ(text.dense_twin(), 1.55);
  ASSERT_EQ(text.values_size(), 3);  // 64 is not offered
  EXPECT_EQ(text.values(1).chunk_size(), 8);
  EXPECT_EQ(text.values(1).value(), 1.64);
  EXPECT_NEAR(text.values(1).loss(), 0.025, 1e-9);
  EXPECT_TRUE(model.quality_tasks(1).higher_is_better());
  EXPECT_FALSE(model.quality_tasks(2).has_dense_twin());
  EXPECT_EQ(model.quality_tasks(3).values_size(), 0);
}

// Six pages: the first request holds 4 of them at chunk size 4, the second wants 3. At 8 the first
// would make room, but its bound leaves 4 alone: the second waits until it has ended.
TEST(QualityBoundUnderPressure, IsNotCrossedToMakeRoomForAnother) {
  ScriptedServer house({.slots = 2, .kv_pages = 6, .card = MeasuredCard()});
  const auto [got, other] = house.Meet(Ask("recall", 0.02, 240), GreedyRequest({1, 2, 3}, 8, 240));
  ASSERT_TRUE(got.status.ok() && other.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.finished().usage().chunk_size(), 4);
  EXPECT_EQ(got.finished().usage().budget_changes_size(), 0);
  EXPECT_THAT(other.ids(), SizeIs(240));
  EXPECT_EQ(GetLoad(house.stubs()).budgets_coarsened(), 0);
}

}  // namespace
}  // namespace catserve::testing

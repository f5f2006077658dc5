// The rows of a sequence, written out as in the golden README's sections 6, 7, 9 and 10.
#include "engine/schedule/sequence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/schedule/page_pool.h"
#include "tests/engine/test_models.h"

namespace catserve {
namespace {

// "g0 f0 S@1 t4@2": a summary is named by its chunk, a token by its place; @ is the position where
// it is not 0. "f" and "c" agree by construction: each summary has its own compression.
std::string RowsOf(const StepPlan& plan) {
  std::string text;
  for (const Row& row : plan.rows) {
    if (!text.empty()) text += ' ';
    switch (row.kind) {
      case RowKind::kFirst: text += "g0"; break;
      case RowKind::kSummary:
        text += 'f' + std::to_string(plan.compressions[row.index].chunk_index);
        break;
      case RowKind::kSeparator: text += 'S'; break;
      case RowKind::kToken: text += 't' + std::to_string(row.index); break;
    }
    if (row.position > 0) text += '@' + std::to_string(row.position);
  }
  return text;
}

class SequenceTest : public testing::Test {
 protected:
  // The rows that the sequence needs to go on to `tokens` tokens, in one step.
  std::string Grow(Sequence& sequence, int32_t tokens, int32_t rows_max = 1000) {
    StepBuilder step({.rows_max = rows_max});
    step.Allow(1000);
    if (sequence.complete() || sequence.tokens() == 0) sequence.Extend(tokens);
    sequence.Fill(step);
    last_ = step.Take();
    return RowsOf(last_);
  }

  PagePool pool_{64};
  StepPlan last_;
};

TEST_F(SequenceTest, TheWorkedExampleOfTheReadme) {
  Sequence cat({CatShape(), 4}, 0, pool_);
  EXPECT_EQ(Grow(cat, 6), "g0 f0 S@1 t4@2 t5@3");
  EXPECT_TRUE(cat.complete());
}

TEST_F(SequenceTest, CatDecodesOneRowPerTokenAndTwoWhereAChunkCloses) {
  Sequence cat({CatShape(), 4}, 0, pool_);
  EXPECT_EQ(Grow(cat, 1), "g0 S@1 t0@2");
  EXPECT_EQ(Grow(cat, 2), "t1@3");
  EXPECT_EQ(Grow(cat, 3), "t2@4");
  EXPECT_EQ(Grow(cat, 4), "f0 S@1");        // t3 itself is never run
  EXPECT_EQ(last_.runs[0].first_entry, 1);  // over the old separator and tokens
  EXPECT_EQ(Grow(cat, 5), "t4@2");
  EXPECT_EQ(last_.runs[0].first_entry, 3);
}

TEST_F(SequenceTest, WithChunksOfOneEveryTokenCloses) {
  Sequence cat({CatShape(), 1}, 0, pool_);
  EXPECT_EQ(Grow(cat, 2), "g0 f0 f1 S@1");
  EXPECT_EQ(Grow(cat, 3), "f2 S@1");
  EXPECT_EQ(cat.table().entries(), 5);
}

TEST_F(SequenceTest, CatFixedHasNoSeparator) {
  Sequence fixed({FixedShape(), 8}, 0, pool_);
  EXPECT_EQ(Grow(fixed, 9), "g0 f0 t8@1");
  EXPECT_EQ(Grow(fixed, 10), "t9@2");
  for (int32_t tokens = 11; tokens < 16; ++tokens) Grow(fixed, tokens);
  EXPECT_EQ(Grow(fixed, 16), "f1");
}

TEST_F(SequenceTest, DenseIsTokensOnly) {
  Sequence dense({DenseShape(), 0}, 0, pool_);
  EXPECT_EQ(Grow(dense, 3), "t0 t1@1 t2@2");
  EXPECT_EQ(Grow(dense, 4), "t3@3");
}

TEST_F(SequenceTest, PrefillInPiecesAddsUpToTheWhole) {
  for (const ModelGeometry& model : {CatShape(), FixedShape(), DenseShape()}) {
    const int32_t size = model.compresses() ? 8 : 0;
    Sequence whole({model, size}, 0, pool_);
    const std::string expected = Grow(whole, 45);
    Sequence pieces({model, size}, 1, pool_);
    std::string text = Grow(pieces, 45, 9);
    while (!pieces.complete()) text += ' ' + Grow(pieces, 45, 9);
    EXPECT_EQ(text, expected);
    EXPECT_EQ(pieces.table().entries(), whole.table().entries());
  }
}

TEST_F(SequenceTest, APieceCompressesItsOwnChunksWithinTheStepsBound) {
  Sequence cat({CatShape(), 8}, 0, pool_);
  EXPECT_EQ(Grow(cat, 45, 16), "g0 f0 f1");  // 16 compressor tokens
  EXPECT_EQ(last_.compressions.size(), 2u);
  EXPECT_EQ(Grow(cat, 45, 16), "f2 f3");
  EXPECT_EQ(Grow(cat, 45, 16), "f4 S@1 t40@2 t41@3 t42@4 t43@5 t44@6");
}

TEST_F(SequenceTest, AClosingThatDoesNotFitWaitsWhole) {
  Sequence cat({CatShape(), 16}, 0, pool_);
  Grow(cat, 15);
  EXPECT_EQ(Grow(cat, 16, 8), "");  // 16 compressor tokens do not fit into 8
  EXPECT_FALSE(cat.complete());
  EXPECT_EQ(Grow(cat, 16, 16), "f0 S@1");
}

TEST_F(SequenceTest, HoldsWhatTheGeometrySays) {
  for (const ModelGeometry& model : {CatShape(), FixedShape(), DenseShape()}) {
    const std::vector<int32_t> sizes = model.compresses() ? model.chunk_sizes : std::vector{0};
    for (const int32_t size : sizes) {
      Sequence sequence({model, size}, 0, pool_);
      int64_t peak = 0;
      for (int32_t tokens = 1; tokens <= 40; ++tokens) {
        Grow(sequence, tokens);
        peak = std::max<int64_t>(peak, sequence.table().entries());
        EXPECT_EQ(sequence.table().entries(), EntriesAtRest(model, size, tokens));
        EXPECT_EQ(peak, PeakEntries(model, size, tokens)) << "C " << size << " n " << tokens;
      }
    }
  }
}

TEST_F(SequenceTest, WithoutPagesItGoesAsFarAsTheyReachAndWaits) {
  PagePool small(1);
  Sequence dense({DenseShape(), 0}, 0, small);
  EXPECT_EQ(dense.PagesMissing(17), 2);
  Grow(dense, 17);
  EXPECT_EQ(dense.table().entries(), kPageEntries);
  EXPECT_FALSE(dense.complete());
  EXPECT_EQ(dense.PagesMissing(17), 1);
}

}  // namespace
}  // namespace catserve

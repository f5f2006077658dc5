#include "engine/text/stop_strings.h"

#include <random>

#include "gtest/gtest.h"

namespace catserve {
namespace {

struct Story {
  std::string text;
  int matched = -1;
};

Story Tell(StopMatcher& matcher, const std::vector<std::string>& pieces) {
  Story story;
  for (const std::string& piece : pieces) {
    const StopMatcher::Output output = matcher.Push(piece);
    story.text += output.text;
    if (output.matched >= 0) story.matched = output.matched;
  }
  story.text += matcher.Flush();
  return story;
}

Story Tell(std::vector<std::string> stops, const std::vector<std::string>& pieces,
           bool include_stop = false) {
  StopMatcher matcher(std::move(stops), include_stop);
  return Tell(matcher, pieces);
}

TEST(StopMatcher, WithoutStopStringsEverythingPassesAtOnce) {
  StopMatcher matcher({}, false);
  EXPECT_EQ(matcher.Push("abc").text, "abc");
  EXPECT_EQ(matcher.held_bytes(), 0u);
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcher, AStopStringSplitOverThreeTokensIsFound) {
  const Story story = Tell({"<END>"}, {"text <", "EN", "D> more"});
  EXPECT_EQ(story.text, "text ");
  EXPECT_EQ(story.matched, 0);
}

TEST(StopMatcher, TextThatMayBecomeAStopStringIsHeldBackAndReleased) {
  StopMatcher matcher({"<END>"}, false);
  EXPECT_EQ(matcher.Push("a<E").text, "a");
  EXPECT_EQ(matcher.held_bytes(), 2u);
  EXPECT_EQ(matcher.Push("x<").text, "<Ex");
  EXPECT_EQ(matcher.held_bytes(), 1u);
  EXPECT_EQ(matcher.Flush(), "<");
  EXPECT_EQ(matcher.held_bytes(), 0u);
}

TEST(StopMatcher, IncludeStopKeepsTheStopStringAndNothingAfterIt) {
  EXPECT_EQ(Tell({"<END>"}, {"text <EN", "D> more"}, true).text, "text <END>");
}

TEST(StopMatcher, TheShorterOfTwoWithTheSameStartWins) {
  // Generation can stop at "ab"; waiting for "abc" would cost tokens that may never come.
  const Story story = Tell({"abc", "ab"}, {"xabc"});
  EXPECT_EQ(story.text, "x");
  EXPECT_EQ(story.matched, 1);
}

TEST(StopMatcher, TheLongestOfThoseThatEndTogetherWins) {
  const Story story = Tell({"b", "ab", "zzab"}, {"xyab"});
  EXPECT_EQ(story.text, "xy");
  EXPECT_EQ(story.matched, 1);
}

TEST(StopMatcher, TheFirstOfTwoEqualOnesIsReported) {
  EXPECT_EQ(Tell({"zz", "ab", "ab"}, {"ab"}).matched, 1);
}

TEST(StopMatcher, TheFirstToBeCompleteWinsOverOneThatStartedEarlier) {
  const Story story = Tell({"world", "o w"}, {"hello w", "orld"});
  EXPECT_EQ(story.text, "hell");
  EXPECT_EQ(story.matched, 1);
}

TEST(StopMatcher, AnOverlappingFalseStartDoesNotHideTheMatch) {
  EXPECT_EQ(Tell({"aab"}, {"aaab"}).text, "a");
  EXPECT_EQ(Tell({"aab"}, {"a", "a", "a", "b"}).text, "a");
  EXPECT_EQ(Tell({"abab!"}, {"ababab!"}).text, "ab");
}

TEST(StopMatcher, AFailedStopStringReleasesAnotherInsideIt) {
  const Story story = Tell({"abcx", "bcd"}, {"ab", "cd"});
  EXPECT_EQ(story.text, "a");
  EXPECT_EQ(story.matched, 1);
}

TEST(StopMatcher, AStopStringMayEndInsideAPieceOfMultiByteText) {
  // "é" is C3 A9, "è" C3 A8: they share a first byte.
  const Story story = Tell({"\xC3\xA9"}, {"\xC3\xA8\xC3", "\xA9\xE6\xBC\xA2"});
  EXPECT_EQ(story.text, "\xC3\xA8");
  EXPECT_EQ(story.matched, 0);
  EXPECT_EQ(Tell({"\xC3\xA9"}, {"a\xC3", "\xA8"}).text, "a\xC3\xA8");
}

TEST(StopMatcher, EmptyStopStringsNeverMatch) {
  EXPECT_EQ(Tell({"", "b"}, {"ab"}).matched, 1);
  EXPECT_EQ(Tell({""}, {"ab"}).text, "ab");
}

TEST(StopMatcher, NothingComesAfterAMatch) {
  StopMatcher matcher({"."}, false);
  EXPECT_EQ(matcher.Push("a.b").text, "a");
  EXPECT_EQ(matcher.Push("c").text, "");
  EXPECT_EQ(matcher.Push(".").matched, -1);
  EXPECT_EQ(matcher.PushLiteral("d"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcher, LiteralTextNeitherStartsNorEndsAStopString) {
  StopMatcher matcher({"ab"}, false);
  EXPECT_EQ(matcher.Push("xa").text, "x");
  EXPECT_EQ(matcher.PushLiteral("b ab a"), "ab ab a");
  EXPECT_EQ(matcher.Push("b").text, "b");
  EXPECT_EQ(matcher.Push("ab").matched, 0);
}

// What the class promises, in the slowest words: try every end, then the longest stop string.
Story Expected(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    int winner = -1;
    for (size_t i = 0; i < stops.size(); ++i) {
      const bool ends = std::string_view(text).substr(0, end).ends_with(stops[i]);
      if (!ends || stops[i].empty()) continue;
      if (winner < 0 || stops[i].size() > stops[winner].size()) winner = static_cast<int>(i);
    }
    if (winner >= 0) return {text.substr(0, end - stops[winner].size()), winner};
  }
  return {text, -1};
}

TEST(StopMatcher, TheCutIntoPiecesDoesNotMatter) {
  std::mt19937 random(2);
  const auto word = [&](size_t longest) {
    std::string text(random() % (longest + 1), 'a');
    for (char& c : text) c = "ab"[random() % 2];
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    const std::vector<std::string> stops = {word(6), word(5), word(4) + "b", word(8)};
    const std::string text = word(24);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      pieces.push_back(text.substr(at, random() % 5));
      at += pieces.back().size();
    }
    const Story story = Tell(stops, pieces);
    const Story expected = Expected(stops, text);
    ASSERT_EQ(story.text, expected.text) << text;
    ASSERT_EQ(story.matched, expected.matched) << text;
  }
}

}  // namespace
}  // namespace catserve

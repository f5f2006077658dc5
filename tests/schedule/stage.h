// The commands of a scenario, played on the real scheduler.
//
//   model cat sizes=4,8,16 block=512      or fixed, dense; first line, as below its defaults
//   limits slots=4 pages=64 tokens=256 rows=256 ratio=0 depth=0 quality=8:0.1,16:0/8:0,16:0.3
//     tokens: work of a step; rows: what it may hold; ratio: work of a compressor token in decoder
//     rows; depth: steps in flight; quality: measured losses, a / between columns
//   arrive A prompt=10 max=3 chunk=4      a request named A; where a model compresses it needs
//                                         chunk=4, auto, or auto=8-32
//     prompt=40@7    the first 40 tokens of text 7; without @ each request has a text of its own
//     prompt=A+10    A's prompt, what A was answered, and 10 tokens more
//     n=2 min=1 priority=5 deadline=30 time_limit=30 salt=x owner=x bypass
//     greedy         all choices draw the same; otherwise each request and choice has its own luck
//     stops=5        draws a stop token as its fifth
//     kv_pages=4     kv_bytes_max, in pages
//     among=4,8 column=1   the chunk sizes that a bound on quality leaves, and what ranks them
//   score S text=50 chunk=8
//   step 3         plans and computes 3 steps, a second each, and tells of every one
//   run            steps until nothing is left that could run; tells what happened
//   run 100        the same, at most 100 steps
//   wait 5         seconds pass
//   show           who holds memory, who waits
//   pause A, resume A, cancel A, cancel_all, end_choice A 0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/engine.h"
#include "tests/engine/schedule/driver.h"
#include "tests/schedule/command.h"
#include "tests/schedule/narrator.h"

namespace catserve {

// Not thread-safe.
class Stage {
 public:
  // depth: steps in flight, whatever `limits` says.
  explicit Stage(std::optional<int> depth = {}) : depth_(depth) {}

  // What came of the command, a line each. Errors: what is wrong with the command.
  absl::StatusOr<std::vector<std::string>> Do(Command& command);

  // OK if all requests have ended, all pages are back and everybody got the tokens that it gets
  // alone, at the same chunk sizes.
  absl::Status Close();

 private:
  struct Actor {
    std::string name;
    RequestKey key = 0;
    Request request;
  };

  absl::Status SetModel(Command& command);
  absl::Status SetLimits(Command& command);
  absl::Status Open();  // checks the limits and starts the scheduler
  absl::Status Play(Command& command);
  absl::Status Arrive(Command& command);
  absl::Status Score(Command& command);
  absl::Status Join(const std::string& name, Request request, Command& command);
  absl::Status Step(Command& command);
  absl::Status Run(Command& command);
  absl::Status Disturb(Command& command);

  std::vector<TokenId> ReadPrompt(const std::string& text, Command& command);
  std::vector<TokenId> TextOf(uint64_t text, int64_t count) const;
  static QualityColumn ReadColumn(absl::string_view text, Command& command);
  void ReadBudget(Command& command, Budget& budget);
  const Actor* Find(const std::string& name, Command& command) const;
  bool AllRest() const;  // nobody is left who could run

  Story Alone(Request request) const;
  // What a choice gets when nobody else is there, coarsened and refined as it was told.
  std::vector<TokenId> AnswerAlone(const Actor& actor, const Story& story, int32_t choice) const;
  absl::Status CheckAnswer(const Actor& actor);

  ModelGeometry model_{.kind = ModelKind::kCat,
                       .chunk_sizes = {4, 8, 16},
                       .block_size = 512,
                       .vocab_size = 1000,
                       .bytes_per_entry = 100};
  ScheduleLimits limits_{.slots = 4, .kv_pages = 64, .step_rows_max = 256, .step_tokens_max = 256};
  std::optional<int> depth_;
  EngineOptions options_;  // the same limits, as admission reads them
  std::optional<Driver> driver_;
  std::optional<Narrator> narrator_;
  std::vector<Actor> actors_;
  std::set<RequestKey> paused_;
  std::vector<std::string> lines_;  // of this command
};

}  // namespace catserve

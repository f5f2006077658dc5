// Tells in lines what the scheduler planned and reported.
//
//   1      7 rows, 2 chunks: A 4, L 3..     second 1: A has 4 rows of the step; L has 3 and draws
//   1      A starts at C=4                  no token yet, its prefill goes on in later steps
//   2-4    1 row: A 1                       the same in each of the seconds 2, 3 and 4
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/step.h"
#include "tests/engine/schedule/driver.h"

namespace catserve {

// Not thread-safe.
class Narrator {
 public:
  // REQUIRES: driver outlives the narrator; nobody else sets its hooks.
  // The work of a step is told where compressor tokens count; where they do not, it is its rows.
  Narrator(const ModelGeometry& model, const ScheduleLimits& limits, Driver& driver);

  // Before its first event.
  void Introduce(RequestKey key, const std::string& name, const Request& request);

  // Tells what happened since the last call, as one moment. `rows`: and what the step planned.
  void EndMoment(bool rows);
  std::vector<std::string> TakeLines();

  // Who holds memory, who waits.
  std::string Describe(const std::set<RequestKey>& paused);

 private:
  struct Actor {
    std::string name;
    bool scores = false;
    int32_t choices = 1;
    bool lost = false;  // its memory, and has none again yet
  };
  struct Deed {
    std::string who;
    std::string does;  // of one: "ends: length, 3 tokens"
  };
  struct Line {
    int64_t first = 0, last = 0;  // seconds since the start
    std::string text;
    bool rows = false;
  };

  void OnPlan(const StepPlan& plan);
  void OnReport(const Report& report);
  std::string Rows(const StepPlan& plan);
  std::string Ends(const Actor& actor, RequestKey key, const FinishedEvent& event) const;
  std::set<RequestKey> Owners() const;
  void SayAll(const std::vector<Deed>& deeds);
  void Say(const std::string& text, bool rows);

  const ModelGeometry model_;
  const ScheduleLimits limits_;
  Driver& driver_;
  const absl::Time start_;
  std::map<RequestKey, Actor> actors_;
  std::set<RequestKey> owners_;  // when the last step was planned
  int64_t preemptions_ = 0;
  std::string rows_;
  std::vector<Deed> moves_;   // who lost memory or has some again
  std::vector<Deed> events_;  // of this moment
  std::vector<Line> lines_;
};

}  // namespace catserve

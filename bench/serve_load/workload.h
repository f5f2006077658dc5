// Which requests a load consists of, and when they arrive: drawn from a seed, without a clock.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "bench/serve_load/random.h"

namespace catserve {

inline constexpr int32_t kLengthsMax = 100'000;  // pairs in a file of lengths
inline constexpr int32_t kTokensMax = 1 << 20;   // of a prompt, or generated
inline constexpr int32_t kPhasesMax = 100;
inline constexpr double kRateMax = 10'000;           // requests per second
inline constexpr double kDurationMaxSeconds = 3600;  // all phases together

struct Lengths {
  int32_t prompt = 0;     // tokens, >= 1
  int32_t generated = 0;  // tokens, >= 1
};

// What a request says about its context's cost.
struct BudgetChoice {
  enum class Kind : uint8_t { kNone, kFixed, kAuto };
  Kind kind = Kind::kNone;     // kNone: the message has no budget, as for a dense model
  int32_t chunk_size_min = 0;  // kFixed: both are the chunk size; kAuto: 0 is the server's default
  int32_t chunk_size_max = 0;
  double share = 1;  // of the requests
};

// Arrivals at one rate for a while.
struct Phase {
  double rate = 0;     // requests per second, >= 0
  double seconds = 0;  // > 0
};

// Each returns INVALID_ARGUMENT with the remedy if the text says something else.
// "1024:32,2048:8": prompt and generated tokens, each pair as likely as the others.
absl::StatusOr<std::vector<Lengths>> ReadLengths(absl::string_view list);
// The same as lines of "prompt generated"; # starts a comment.
absl::StatusOr<std::vector<Lengths>> ReadLengthsFile(absl::string_view text);
// "8:0.5,auto8-32:0.3,auto:0.2" (shares add up to 1), "16" (all of them) or "none".
absl::StatusOr<std::vector<BudgetChoice>> ReadBudgets(absl::string_view list);
// "2:30,20:10,2:30": requests per second, for so many seconds.
absl::StatusOr<std::vector<Phase>> ReadPhases(absl::string_view list);

// A Poisson process whose rate changes from phase to phase.
class PoissonArrivals {
 public:
  PoissonArrivals(std::vector<Phase> phases, uint64_t seed);

  // Seconds from the start, ascending; nothing once the phases are over.
  std::optional<double> Next();

 private:
  std::vector<Phase> phases_;
  Random random_;
  size_t phase_ = 0;
  double phase_start_ = 0;
  double now_ = 0;
};

struct WorkloadSpec {
  std::vector<Lengths> lengths;       // not empty
  std::vector<BudgetChoice> budgets;  // not empty, shares add up to 1
  double cancel_share = 0;            // [0, 1]
  double slow_share = 0;              // [0, 1]
  int32_t shared_prefix = 0;          // tokens that all prompts begin with
  int32_t vocabulary = 0;             // ids are 0 <= id < vocabulary
  uint64_t seed = 1;
};

// One request to be.
struct Shot {
  int64_t index = 0;
  Lengths lengths;
  BudgetChoice budget;
  int32_t cancel_after = 0;  // tokens after which the client cancels; 0: it does not
  bool slow = false;
  uint64_t seed = 0;  // of its sampling
};

// Draws requests; the n-th is the same whatever is drawn for the others, and a change of budgets or
// shares leaves lengths and prompts as they were.
class Workload {
 public:
  explicit Workload(WorkloadSpec spec);

  Shot Next();
  // The ids of a shot's prompt.
  std::vector<int32_t> Prompt(const Shot& shot) const;

 private:
  const BudgetChoice& DrawBudget();

  WorkloadSpec spec_;
  int64_t drawn_ = 0;
  Random lengths_, budgets_, cancels_, slow_;
};

}  // namespace catserve

// The way of each request through the server, for the log and for /debug/requests. Never holds text
// or tokens of a prompt or an answer.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace catserve {

// Something that happened to a request while it ran.
struct TraceMark {
  enum class Kind : uint8_t { kBudgetChanged, kPreempted, kPaused, kResumed };
  Kind kind = Kind::kPreempted;
  absl::Time at;
  int32_t from_chunk_size = 0;  // of kBudgetChanged
  int32_t to_chunk_size = 0;
};

inline constexpr size_t kTraceMarksMax = 64;  // of one request; later ones are counted alone

struct RequestTrace {
  const char* method = "";  // a literal
  std::string request_id;
  std::string trace_id;
  std::string owner;  // empty: nobody's in particular
  int32_t prompt_tokens = 0;
  int32_t choices = 1;

  absl::Time received;
  std::optional<absl::Time> started;       // its first step
  std::optional<absl::Time> first_result;  // a token or a score
  std::optional<absl::Time> computed;      // the engine's last word; what follows is the reader's
  std::optional<absl::Time> ended;

  int32_t cached_tokens = 0;
  int32_t chunk_size = 0;  // now; 0 for a dense model
  int64_t generated_tokens = 0;
  bool paused = false;     // its reader is behind
  bool preempted = false;  // lost its memory and has not come back to drawing
  std::vector<TraceMark> marks;
  int64_t marks_left_out = 0;

  // Known once it is computed.
  int32_t prefill_pieces = 0;
  int64_t chunks_compressed = 0;
  absl::Duration compressing;
  int64_t kv_bytes_peak = 0;
  int32_t preemptions = 0;
  int32_t budget_changes = 0;
  std::string code;          // "OK", "CANCELLED", ...
  absl::string_view reason;  // a literal: "length", "aborted", ...; empty until it is computed

  void Mark(TraceMark mark);
};

// "queued", "prefill", "decode", "preempted", "paused", "reading" (computed, and the reader has not
// taken all of it) or "ended".
absl::string_view StateOf(const RequestTrace& trace);

// A trace that grows on one thread and is looked at by others.
class LiveTrace {
 public:
  LiveTrace(RequestTrace trace, uint64_t place) : place_(place), trace_(std::move(trace)) {}

  uint64_t place() const { return place_; }  // in the order of beginnings

  template <typename Change>
  void Update(const Change& change) {
    absl::MutexLock lock(&mutex_);
    change(trace_);
  }
  RequestTrace Read() const {
    absl::MutexLock lock(&mutex_);
    return trace_;
  }

 private:
  const uint64_t place_;
  mutable absl::Mutex mutex_;
  RequestTrace trace_ ABSL_GUARDED_BY(mutex_);
};

// Those under way, and the slowest of the last minutes. Thread-safe; who looks holds up nobody for
// longer than a copy of a list of pointers, and the step thread not at all. Bounded: by the
// requests that are live, and by kSlowestMax.
class RequestTraces {
 public:
  static constexpr size_t kSlowestMax = 40;
  static constexpr absl::Duration kRecent = absl::Minutes(10);

  std::shared_ptr<LiveTrace> Begin(RequestTrace trace);
  void Remove(const LiveTrace& trace);  // it is under way no more
  void Keep(RequestTrace ended);        // if it is among the slowest

  struct Running {
    std::vector<RequestTrace> oldest;  // first; at most as many as asked for
    size_t count = 0;                  // of all
  };
  Running ReadRunning(size_t count_max) const;
  // Those that ended after now - kRecent, slowest first.
  std::vector<RequestTrace> ReadSlowest(absl::Time now) const;

 private:
  mutable absl::Mutex mutex_;
  uint64_t begun_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, std::shared_ptr<LiveTrace>> running_ ABSL_GUARDED_BY(mutex_);  // by place
  std::vector<RequestTrace> slowest_ ABSL_GUARDED_BY(mutex_);                       // slowest first
};

}  // namespace catserve

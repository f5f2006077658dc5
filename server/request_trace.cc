#include "server/request_trace.h"

#include <algorithm>

namespace catserve {
namespace {

absl::Duration Length(const RequestTrace& trace) { return *trace.ended - trace.received; }

}  // namespace

void RequestTrace::Mark(TraceMark mark) {
  if (marks.size() < kTraceMarksMax) {
    marks.push_back(mark);
  } else {
    ++marks_left_out;
  }
}

absl::string_view StateOf(const RequestTrace& trace) {
  if (trace.ended) return "ended";
  if (trace.computed) return "reading";
  if (trace.preempted) return "preempted";
  if (trace.paused) return "paused";
  if (!trace.started) return "queued";
  return trace.first_result ? "decode" : "prefill";
}

std::shared_ptr<LiveTrace> RequestTraces::Begin(RequestTrace trace) {
  absl::MutexLock lock(&mutex_);
  const uint64_t place = begun_++;
  auto live = std::make_shared<LiveTrace>(std::move(trace), place);
  running_.emplace_hint(running_.end(), place, live);
  return live;
}

void RequestTraces::Remove(const LiveTrace& trace) {
  absl::MutexLock lock(&mutex_);
  running_.erase(trace.place());
}

void RequestTraces::Keep(RequestTrace ended) {
  const absl::Time oldest = *ended.ended - kRecent;
  absl::MutexLock lock(&mutex_);
  std::erase_if(slowest_, [oldest](const RequestTrace& kept) { return *kept.ended < oldest; });
  const auto slower = [](const RequestTrace& a, const RequestTrace& b) {
    return Length(a) > Length(b);
  };
  const auto place = std::upper_bound(slowest_.begin(), slowest_.end(), ended, slower);
  if (place == slowest_.end() && slowest_.size() >= kSlowestMax) return;
  slowest_.insert(place, std::move(ended));
  if (slowest_.size() > kSlowestMax) slowest_.pop_back();
}

RequestTraces::Running RequestTraces::ReadRunning(size_t count_max) const {
  std::vector<std::shared_ptr<LiveTrace>> oldest;
  Running running;
  {
    absl::MutexLock lock(&mutex_);
    running.count = running_.size();
    for (const auto& [place, trace] : running_) {
      if (oldest.size() == count_max) break;
      oldest.push_back(trace);
    }
  }
  for (const auto& trace : oldest) running.oldest.push_back(trace->Read());
  return running;
}

std::vector<RequestTrace> RequestTraces::ReadSlowest(absl::Time now) const {
  std::vector<RequestTrace> slowest;
  absl::MutexLock lock(&mutex_);
  std::copy_if(slowest_.begin(), slowest_.end(), std::back_inserter(slowest),
               [now](const RequestTrace& kept) { return *kept.ended > now - kRecent; });
  return slowest;
}

}  // namespace catserve

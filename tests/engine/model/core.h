// Scheduler and model, turned by hand as the engine turns them.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/schedule/scheduler.h"
#include "engine/step.h"
#include "tests/engine/schedule/driver.h"

namespace catserve::testing {

class Core {
 public:
  Core(const ModelGeometry& model, const ScheduleLimits& limits,
       std::unique_ptr<StepExecutor> executor)
      : model_(model), scheduler_(model, limits), executor_(std::move(executor)) {}

  // A chunk size that the model has: the wanted one, or its largest; 0 of a dense model.
  int32_t Offered(int32_t chunk_size) const {
    if (model_.Offers(chunk_size)) return chunk_size;
    return model_.compresses() ? model_.chunk_sizes.back() : 0;
  }

  RequestKey Add(const Request& request) {
    const RequestKey key = next_key_++;
    stories_[key].tokens.resize(request.choices);
    stories_[key].ends.resize(request.task == Task::kScore ? 0 : request.choices);
    scheduler_.Add(key, request, now_);
    return key;
  }
  // False if there was nothing to do.
  bool Step() {
    now_ += absl::Seconds(1);
    const StepPlan plan = scheduler_.Plan(now_);
    Read(scheduler_.TakeReports());
    if (plan.empty() && in_flight_ == 0) return false;
    if (!plan.empty()) {
      executor_->Launch(plan);
      most_in_flight_ = std::max(most_in_flight_, ++in_flight_);
    }
    if (in_flight_ > (plan.empty() ? 0 : executor_->PipelineDepth())) {
      Read(scheduler_.Commit(executor_->Collect(), now_));
      --in_flight_;
    }
    return true;
  }
  void Steps(int count) {
    for (int i = 0; i < count; ++i) Step();
  }
  void Run() {
    while (Step()) {
    }
  }
  Story Tell(const Request& request) {
    const RequestKey key = Add(request);
    Run();
    return stories_[key];
  }
  void Cancel(RequestKey key) {
    scheduler_.Cancel(key, now_);
    Read(scheduler_.TakeReports());
  }
  Scheduler& scheduler() { return scheduler_; }
  const Story& story(RequestKey key) { return stories_[key]; }
  int most_in_flight() const { return most_in_flight_; }

 private:
  void Read(std::vector<Report> reports) {
    for (Report& report : reports) std::visit(stories_[report.key], report.event);
  }

  const ModelGeometry model_;
  Scheduler scheduler_;
  std::unique_ptr<StepExecutor> executor_;
  std::map<RequestKey, Story> stories_;
  RequestKey next_key_ = 1;
  int in_flight_ = 0;
  int most_in_flight_ = 0;
  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
};

}  // namespace catserve::testing

#include "kernels/cuda/part_graphs.h"

#include <algorithm>
#include <utility>

namespace catserve::cuda {
namespace {

bool Equal(const Tasks& a, const Tasks& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return x->Equals(*y); });
}

}  // namespace

void PartGraphs::Run(const StepPart& part, Tasks tasks) {
  if (part.kind == PartKind::kOther) return Launch(tasks);
  std::vector<Variant>& variants = parts_[part];
  const auto same = std::find_if(variants.begin(), variants.end(), [&](const Variant& variant) {
    return Equal(variant.tasks, tasks);
  });
  if (same == variants.end()) {
    Launch(tasks);
    Remember(variants, std::move(tasks));
  } else if (same->graph.has_value()) {
    ++replayed_;
    runtime_.Launch(*same->graph);
  } else if (same->refused || graphs_ >= kGraphsMax) {
    ++refused_;
    Launch(tasks);
  } else {
    Record(*same);
  }
}

void PartGraphs::Launch(const Tasks& tasks) {
  for (const std::unique_ptr<Task>& task : tasks) task->Run(runtime_.stream());
}

void PartGraphs::Record(Variant& variant) {
  runtime_.BeginCapture();
  Launch(variant.tasks);
  variant.graph = runtime_.EndCapture();
  if (variant.graph.has_value()) {
    ++graphs_;
    ++recorded_;
    runtime_.Launch(*variant.graph);
  } else {
    variant.refused = true;
    ++refused_;
    Launch(variant.tasks);
  }
}

// Graphs stay; of what has none, the oldest makes room.
void PartGraphs::Remember(std::vector<Variant>& variants, Tasks tasks) {
  ++(variants.empty() ? first_ : differed_);
  if (variants.size() >= kVariantsMax) {
    const auto oldest = std::find_if(variants.begin(), variants.end(), [](const Variant& variant) {
      return !variant.graph.has_value();
    });
    if (oldest == variants.end()) return;
    variants.erase(oldest);
  }
  variants.push_back({.tasks = std::move(tasks)});
}

void PartGraphs::Forget() {
  parts_.clear();
  graphs_ = 0;
}

PartCounts PartGraphs::counts() const {
  return {.replayed = replayed_,
          .recorded = recorded_,
          .first = first_,
          .differed = differed_,
          .refused = refused_};
}

}  // namespace catserve::cuda

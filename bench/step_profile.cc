// Where the time of one sequence goes: its prefill and its decode step by part of the model, beside
// the floor of each part. Prints PHASE.PART=SECONDS s and PHASE.PART.floor=SECONDS s lines, of the
// fastest run, which neighbours disturbed least, as they did the best of the ceilings taken; "rest"
// is what lies between the backend's operations.
#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "bench/ceilings.h"
#include "bench/profiling_backend.h"
#include "bench/random_checkpoint.h"
#include "engine/engine.h"
#include "engine/model/model.h"
#include "engine/model/model_executor.h"
#include "kernels/backend_factory.h"

ABSL_FLAG(std::string, shape, "cat-1536", "A shape of random_checkpoint.h, with random weights");
ABSL_FLAG(std::string, scratch, "build/bench_models", "Where random checkpoints are kept");
ABSL_FLAG(std::string, weight_dtype, "stored", "stored, I8 or I4");
ABSL_FLAG(int32_t, chunk_size, 16, "0 for a dense model");
ABSL_FLAG(int32_t, prompt_tokens, 512, "Tokens of the prompt");
ABSL_FLAG(int32_t, threads, 0, "Worker threads; 0: one for each core");

namespace catserve {
namespace {

constexpr int kRuns = 9;
constexpr int32_t kDecodeTokens = 48;  // whole chunks of up to 16

// What one run took.
struct Profile {
  double seconds = 0;
  int steps = 1;  // figures are printed of one
  std::map<std::string, PartTime> parts;
};

void NameStack(ProfilingBackend& backend, const StackWeights& stack, const std::string& name) {
  for (const LayerWeights& layer : stack.layers) {
    for (const Matrix* w :
         {layer.wqkv.get(), layer.wo.get(), layer.gate_up.get(), layer.down.get()}) {
      backend.Name(*w, name);
    }
  }
}

void NameMatrices(ProfilingBackend& backend, const ModelWeights& weights) {
  NameStack(backend, weights.stack, "decoder products");
  NameStack(backend, weights.compressor.stack, "compressor products");
  for (const auto& [size, w] : weights.compressor.projections) backend.Name(*w, "projection");
  backend.Name(*weights.output, "output product");
}

// Generates `tokens` tokens after the prompt; the first in `prefill`, a later one in `decode`.
absl::Status RunOnce(Engine& engine, ProfilingBackend& backend, int32_t vocab_size,
                     Profile& prefill, Profile& decode) {
  Request request;
  for (int32_t i = 0; i < absl::GetFlag(FLAGS_prompt_tokens); ++i) {
    request.prompt.push_back(i * 7919 % vocab_size);
  }
  request.budget.chunk_size = absl::GetFlag(FLAGS_chunk_size);
  request.sampling.temperature = 0;
  request.bypass_prefix_cache = true;  // else it would answer for the model
  request.stop.max_tokens = kDecodeTokens + 1;
  absl::Notification finished;
  absl::Time at = absl::Now();
  // Events come from the step thread, between two steps: no operation runs meanwhile.
  const auto sink = [&](const Event& event) {
    if (std::holds_alternative<FinishedEvent>(event)) return finished.Notify();
    if (!std::holds_alternative<TokensEvent>(event)) return;
    const double seconds = absl::ToDoubleSeconds(absl::Now() - at);
    at += absl::Seconds(seconds);
    if (prefill.parts.empty()) {
      prefill = {.seconds = seconds, .parts = backend.Take()};
      return;
    }
    decode.seconds += seconds;
  };
  const auto key = engine.Submit(std::move(request), sink);
  if (!key.ok()) return key.status();
  finished.WaitForNotification();
  decode.parts = backend.Take();
  decode.steps = kDecodeTokens;
  return absl::OkStatus();
}

void Print(const std::string& phase, const Ceilings& ceilings, std::vector<Profile> runs) {
  std::sort(runs.begin(), runs.end(),
            [](const Profile& a, const Profile& b) { return a.seconds < b.seconds; });
  const Profile& run = runs.front();
  const auto line = [&](const std::string& part, double seconds) {
    std::cout << absl::StrFormat("%s.%s=%.4g s\n", phase, part, seconds / run.steps);
  };
  double rest = run.seconds;
  for (const auto& [name, part] : run.parts) {
    line(name, part.seconds);
    line(name + ".floor", part.FloorSeconds(ceilings));
    rest -= part.seconds;
  }
  line("rest", rest);
  line("rest.floor", 0);
  line("total", run.seconds);
  line("total.median", runs[runs.size() / 2].seconds);
  line("total.high", runs.back().seconds);
}

absl::Status Run() {
  const std::string shape = absl::GetFlag(FLAGS_shape);
  const std::string directory = absl::StrCat(absl::GetFlag(FLAGS_scratch), "/", shape);
  if (auto status = WriteRandomCheckpoint(shape, directory); !status.ok()) return status;
  int threads = absl::GetFlag(FLAGS_threads);
  if (threads == 0) threads = static_cast<int>(std::thread::hardware_concurrency());
  auto cpu = MakeBackend("cpu", threads);
  if (!cpu.ok()) return cpu.status();
  ProfilingBackend backend(*std::move(cpu));
  ModelOptions model_options;
  if (absl::GetFlag(FLAGS_weight_dtype) == "I8") model_options.weight_type = WeightType::kI8;
  if (absl::GetFlag(FLAGS_weight_dtype) == "I4") model_options.weight_type = WeightType::kI4;
  auto model = Model::Load(directory, backend, model_options);
  if (!model.ok()) return model.status();
  NameMatrices(backend, (*model)->weights());
  const ModelDescription description = (*model)->Describe(DType::kBF16);
  EngineOptions options;
  options.slots = 1;
  options.kv_pages = 2 * PagesFor(description.geometry.block_size);
  auto executor = ModelExecutor::Create(**model, backend,
                                        {.slots = options.slots,
                                         .kv_pages = options.kv_pages,
                                         .kv_dtype = DType::kBF16,
                                         .step_rows_max = options.step_rows_max});
  if (!executor.ok()) return executor.status();
  Engine engine(description.geometry, **executor, options);
  std::vector<Profile> prefills(kRuns), decodes(kRuns);
  Ceilings ceilings;
  for (int i = 0; i < kRuns; ++i) {
    // Between the runs, so that both meet the same neighbours.
    ceilings = Best(ceilings, MeasureCeilings(threads));
    if (auto status =
            RunOnce(engine, backend, description.geometry.vocab_size, prefills[i], decodes[i]);
        !status.ok()) {
      return status;
    }
  }
  std::cout << absl::StrFormat(
      "# %s, C = %d, a prompt of %d tokens; %s, %d threads, %.1f GB/s read, %.0f GOP/s; "
      "weights %s, KV %s\n",
      shape, absl::GetFlag(FLAGS_chunk_size), absl::GetFlag(FLAGS_prompt_tokens),
      backend.Description(), threads, ceilings.read_bytes_per_second / 1e9,
      ceilings.OpsPerSecond(description.weight_dtype) / 1e9, description.weight_dtype,
      description.kv_dtype);
  Print("prefill", ceilings, std::move(prefills));
  Print("decode", ceilings, std::move(decodes));
  return absl::OkStatus();
}

}  // namespace
}  // namespace catserve

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  if (const absl::Status status = catserve::Run(); !status.ok()) {
    std::cerr << "step_profile: " << status.message() << "\n";
    return 1;
  }
  return 0;
}

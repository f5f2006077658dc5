// serve_load: load against a running catserved, open loop (arrivals never wait for answers) or
// closed. See --help; tools/bench_serve.py runs whole experiments with it.
#include <cstdio>
#include <iostream>

#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "bench/serve_load/options.h"
#include "bench/serve_load/report.h"
#include "bench/serve_load/runner.h"
#include "bench/serve_load/summary.h"

namespace catserve {
namespace {

constexpr int kExitUsage = 2;

absl::Status Main() {
  absl::StatusOr<LoadOptions> options = ReadLoadFlags();
  if (!options.ok()) return options.status();
  absl::StatusOr<v1::GetModelResponse> model = AskModel(options->server);
  if (!model.ok()) return model.status();
  if (auto status = FitToModel(*model, *options); !status.ok()) return status;
  RunResult run = RunLoad(*options);
  run.model = *std::move(model);
  const Summary summary = Summarise(*options, run);
  std::cout << run.model.name() << " on " << run.model.engine() << "\n"
            << Table(summary) << "\n"
            << Figures(options->name, summary) << std::flush;
  return options->json.empty() ? absl::OkStatus() : WriteJson(*options, run, summary);
}

}  // namespace
}  // namespace catserve

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "sends load to a catserved on this machine:\n"
      "  serve_load --server=127.0.0.1:8500 --rate=2 --lengths=256:64 --budgets=8:0.5,auto:0.5\n"
      "  serve_load --server=127.0.0.1:8500 --concurrency=16 --requests=64 --json=result.json");
  const std::vector<char*> others = absl::ParseCommandLine(argc, argv);
  if (others.size() > 1) {
    std::fprintf(stderr, "serve_load: \"%s\" is no flag: write --name=value; see --help\n",
                 others[1]);
    return catserve::kExitUsage;
  }
  if (const absl::Status status = catserve::Main(); !status.ok()) {
    std::fprintf(stderr, "serve_load: %s\n", std::string(status.message()).c_str());
    return absl::IsInvalidArgument(status) ? catserve::kExitUsage : 1;
  }
  return 0;
}

// The results as people and as scripts read them.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "bench/serve_load/options.h"
#include "bench/serve_load/runner.h"
#include "bench/serve_load/summary.h"

namespace catserve {

std::string Table(const Summary& summary);
// "name=value unit" lines.
std::string Figures(const std::string& name, const Summary& summary);

// Errors: UNAVAILABLE if the file cannot be written.
absl::Status WriteJson(const LoadOptions& options, const RunResult& run, const Summary& summary);

}  // namespace catserve

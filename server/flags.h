// What an operator sets when starting catserved.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/config/config_file.h"

namespace catserve {

struct ServerOptions {
  std::string model_dir;
  std::string listen_address;   // host:port; port 0 lets the system choose
  std::string metrics_address;  // the same; empty: no metrics page
  std::string port_file;        // empty: none
  std::string backend;
  int threads = 0;           // 0: one for each core
  std::string weight_dtype;  // "stored", "F32", "BF16", "F16", "I8", "I4", "F8_E4M3"
  std::string kv_dtype;      // "weights", "F32", "BF16", "I8", "F8_E4M3"
  int32_t slots = 0;
  int64_t kv_memory_bytes = 0;  // 0: a share of the memory that is free
  double gpu_memory_fraction = 0;
  int32_t queue_requests_max = 0;
  int32_t request_bytes_max = 0;
  int32_t step_tokens_max = 0;  // 0: chosen by the server
  std::string default_budget;   // see ReadDefaultBudget (served_model.h)
  absl::Duration drain;
  absl::Duration keepalive;
  ServerConfig config;  // of --config
  bool help = false;
};

// Reads `args` (without the program's name), and the configuration file if they name one. Checks
// each flag's range; what depends on the model is checked once it is loaded. Errors:
// INVALID_ARGUMENT, one line that names the flag, or the file's line and key, and the remedy.
absl::StatusOr<ServerOptions> ReadServerFlags(const std::vector<std::string>& args);

// For `catserved --help`.
std::string ServerHelp();

}  // namespace catserve

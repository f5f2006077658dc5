// Keeps the libraries' own lines off stderr.
#pragma once

#include <cstdio>
#include <cstdlib>

#include "absl/strings/match.h"
#include "google/protobuf/stubs/logging.h"
#include "grpc/support/log.h"

namespace catserve {

// What gRPC and protobuf complain of reaches this process as a status too, and clients do not get
// to fill the log with it. Lines before an abort stay, and GRPC_VERBOSITY brings gRPC's back. Call
// it before any other thread starts.
inline void SilenceLibraries() {
  google::protobuf::SetLogHandler(nullptr);
  if (std::getenv("GRPC_VERBOSITY") != nullptr) return;
  gpr_set_log_function([](gpr_log_func_args* line) {
    if (absl::StartsWith(line->message, "assertion failed")) {
      std::fprintf(stderr, "%s:%d: %s\n", line->file, line->line, line->message);
    }
  });
}

}  // namespace catserve

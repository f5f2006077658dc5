// How KServe calls are refused.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "engine/text/utf8.h"
#include "grpcpp/support/server_callback.h"
#include "inference/kserve.pb.h"
#include "server/status.h"

namespace catserve::kserve {

// Words of an error: a status travels in headers, and what a caller sent must not come back whole.
inline constexpr size_t kErrorBytesMax = 1000;

inline absl::Status Shortened(const absl::Status& status) {
  if (status.message().size() <= kErrorBytesMax) return status;
  std::string words(status.message().substr(0, kErrorBytesMax));
  words.resize(ClosedUtf8Prefix(words));
  return absl::Status(status.code(), words + "...");
}

// A stream that says nothing but its status. Deletes itself.
class RefusedStream final : public grpc::ServerBidiReactor<inference::ModelInferRequest,
                                                           inference::ModelStreamInferResponse> {
 public:
  explicit RefusedStream(const absl::Status& status) { Finish(ToGrpc(status)); }

 private:
  void OnDone() override { delete this; }
};

}  // namespace catserve::kserve

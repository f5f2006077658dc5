// Calls that end at once, with an answer or an error.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/admission.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "server/access.h"
#include "server/metrics.h"
#include "server/status.h"
#include "server/wire.h"

namespace catserve {

// gRPC's retry policies read this header.
inline constexpr char kPushbackHeader[] = "grpc-retry-pushback-ms";
inline constexpr absl::Duration kPushbackDefault = absl::Seconds(1);

// The header's value for RESOURCE_EXHAUSTED: what the refusal itself says, if it does. Nothing for
// other codes.
inline std::optional<std::string> PushbackMs(const absl::Status& status) {
  if (!absl::IsResourceExhausted(status)) return std::nullopt;
  return absl::StrCat(absl::ToInt64Milliseconds(RetryAfter(status).value_or(kPushbackDefault)));
}

inline void AddPushback(grpc::CallbackServerContext& context, const absl::Status& status) {
  if (const auto pushback = PushbackMs(status)) {
    context.AddTrailingMetadata(kPushbackHeader, *pushback);
  }
}

// A stream that says nothing but its status. Deletes itself.
class Refusal final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit Refusal(const grpc::Status& status) { Finish(status); }

 private:
  void OnDone() override { delete this; }
};

// What every method asks first and tells last. Both outlive it.
struct Desk {
  const Access* access = nullptr;
  Metrics* metrics = nullptr;
};

// Answers a unary call and counts it: `ask` turns a known caller into an absl::StatusOr of the
// response message.
template <typename Ask>
grpc::ServerUnaryReactor* Answer(const Desk& desk, grpc::CallbackServerContext* context,
                                 const char* method, grpc::ByteBuffer* response, const Ask& ask) {
  const absl::StatusOr<Caller> caller = desk.access->Identify(*context);
  grpc::Status status = ToGrpc(caller.status());
  if (caller.ok()) {
    const auto result = ask(*caller);
    status = ToGrpc(result.status());
    if (status.ok()) *response = SerializeBytes(*result);
  }
  desk.metrics->CountRequest(method, status.error_code());
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

}  // namespace catserve

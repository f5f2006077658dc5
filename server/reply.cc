#include "server/reply.h"

namespace catserve {

grpc::Status EndStatus(FinishReason reason, bool left) {
  if (reason == FinishReason::kDeadline) {
    return grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "the call's deadline has passed");
  }
  if (reason == FinishReason::kFailed) {
    return grpc::Status(grpc::StatusCode::INTERNAL, "the engine stopped; see the server's log");
  }
  return left ? grpc::Status(grpc::StatusCode::CANCELLED, "the client left") : grpc::Status::OK;
}

}  // namespace catserve

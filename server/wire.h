// Messages to and from the bytes that gRPC carries. The services take raw bytes because gRPC's own
// parsing answers a message that cannot be parsed with UNIMPLEMENTED and no text; here the client
// learns which field is wrong.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"

namespace catserve {

// INVALID_ARGUMENT: names the first field whose text is no valid UTF-8 (or whose nested message is
// damaged), with its byte offset. REQUIRES: protobuf refused `bytes` as a message of this type.
absl::Status ExplainParseFailure(const google::protobuf::Descriptor& type, absl::string_view bytes);

// Parses into `message`. Errors: INVALID_ARGUMENT as ExplainParseFailure.
absl::Status ParseBytes(const grpc::ByteBuffer& buffer, google::protobuf::Message& message);

grpc::ByteBuffer SerializeBytes(const google::protobuf::Message& message);

template <typename Message>
absl::StatusOr<Message> Parse(const grpc::ByteBuffer& buffer) {
  absl::StatusOr<Message> message{Message()};
  if (absl::Status status = ParseBytes(buffer, *message); !status.ok()) return status;
  return message;
}

}  // namespace catserve

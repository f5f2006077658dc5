// catserve.v1.Generation.
#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "catserve/v1/generation.grpc.pb.h"
#include "google/protobuf/descriptor.h"
#include "server/delivery.h"
#include "server/live_requests.h"
#include "server/refusal.h"
#include "server/request_reader.h"
#include "server/served_model.h"
#include "server/token_stream.h"

namespace catserve {

using RawGenerationService = v1::Generation::WithRawCallbackMethod_Generate<
    v1::Generation::WithRawCallbackMethod_Score<v1::Generation::WithRawCallbackMethod_Tokenize<
        v1::Generation::WithRawCallbackMethod_Detokenize<
            v1::Generation::WithRawCallbackMethod_Abort<v1::Generation::Service>>>>>;

inline constexpr int32_t kDetokenizeIdsMax = 65536;  // in one call

// Reads messages and submits requests on gRPC's callback threads; what follows is TokenStream's.
class GenerationService final : public RawGenerationService {
 public:
  struct Parts {  // all outlive the service
    const Gate* gate = nullptr;
    Delivery* delivery = nullptr;
    LiveRequests* live = nullptr;
    Desk desk;
    int32_t reader_lag_tokens_max = 0;
  };
  explicit GenerationService(Parts parts) : parts_(parts) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* message) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Score(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* message) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* message,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* message,
                                       grpc::ByteBuffer* response) override;
  // A caller may end its own requests; those of others are not found.
  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer* message,
                                  grpc::ByteBuffer* response) override;

 private:
  using Stream = grpc::ServerWriteReactor<grpc::ByteBuffer>;

  struct Arrival {  // a streaming call of a known caller
    grpc::CallbackServerContext& context;
    const grpc::ByteBuffer& message;
    const Caller& caller;
    absl::Time received;
  };
  struct Method {
    const char* name;
    const google::protobuf::Descriptor* request;
    absl::StatusOr<Stream*> (GenerationService::*start)(const Arrival&);
  };
  Stream* StreamOrRefusal(grpc::CallbackServerContext* context, const grpc::ByteBuffer& message,
                          const Method& method);
  absl::StatusOr<Stream*> StartGenerate(const Arrival& arrival);
  absl::StatusOr<Stream*> StartScore(const Arrival& arrival);
  // Makes the request its caller's. Without reply and meter.
  TokenStream::Parts StreamParts(const ServedModel& model, const Arrival& arrival,
                                 ReadRequest& read) const;

  absl::StatusOr<v1::TokenizeResponse> Tokens(const grpc::ByteBuffer& message) const;
  absl::StatusOr<v1::DetokenizeResponse> Text(const grpc::ByteBuffer& message) const;
  absl::StatusOr<v1::AbortResponse> EndRequest(const Caller& caller,
                                               const grpc::ByteBuffer& message) const;

  const Parts parts_;
};

}  // namespace catserve

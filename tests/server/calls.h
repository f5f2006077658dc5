// A client's calls, with what came back kept whole.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "catserve/v1/generation.grpc.pb.h"
#include "catserve/v1/model.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/security/credentials.h"

namespace catserve::testing {

struct Stubs {
  // `buffer_bytes`: what the transport takes in for a stream that nobody reads; 0: as usual.
  explicit Stubs(const std::string& address, int buffer_bytes = 0);
  // A connection of its own, with TLS.
  Stubs(const std::string& address, const grpc::SslCredentialsOptions& tls);
  explicit Stubs(std::shared_ptr<grpc::Channel> channel);

  // Every call carries this token; empty: none.
  Stubs& WithToken(const std::string& token);
  void Prepare(grpc::ClientContext& context) const;

  std::string token;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Generation::Stub> generation;
  std::unique_ptr<v1::Models::Stub> models;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;
};

struct Generated {
  std::vector<v1::GenerateResponse> events;
  grpc::Status status;
  std::string pushback;  // trailing metadata grpc-retry-pushback-ms

  v1::Started started() const;
  std::string text(int choice = 0) const;
  std::vector<int32_t> ids(int choice = 0) const;
  std::vector<v1::TokenInfo> info(int choice = 0) const;
  v1::ChoiceFinished choice_end(int choice = 0) const;
  v1::Finished finished() const;  // the last event, or empty
};

// One Generate call under way.
class GenerateCall {
 public:
  GenerateCall(Stubs& stubs, const v1::GenerateRequest& request,
               absl::Time deadline = absl::InfiniteFuture());

  // Reads the next event into `events`; false at the end of the stream.
  bool Read();
  // Reads until an event with tokens came; false if the stream ended first.
  bool ReadTokens();
  Generated Finish();  // reads the rest
  void Cancel() { context_.TryCancel(); }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;
  Generated so_far_;
};

Generated Generate(Stubs& stubs, const v1::GenerateRequest& request);

struct Scored {
  std::vector<v1::TokenInfo> tokens;  // of positions 1, 2, ...
  v1::Started started;
  v1::ScoreFinished finished;
  grpc::Status status;
};
Scored Score(Stubs& stubs, const v1::ScoreRequest& request);

v1::GetLoadResponse GetLoad(Stubs& stubs);

// The status of one short call of a method ("Generate", "GetModel", ...).
grpc::Status CallMethod(Stubs& stubs, const std::string& method);
inline constexpr const char* kMethods[] = {"Generate", "Score",    "Tokenize", "Detokenize",
                                           "Abort",    "GetModel", "GetLoad"};

// Whether a live request of that id was found.
bool Abort(Stubs& stubs, const std::string& id);

// Asks until the load is as wished; the test's own time limit bounds it.
template <typename Wish>
void AwaitLoad(Stubs& stubs, const Wish& wish) {
  while (!wish(GetLoad(stubs))) continue;
}
inline void AwaitIdle(Stubs& stubs) {
  AwaitLoad(stubs, [](const v1::GetLoadResponse& load) {
    return load.kv_pages_used() == 0 && load.running_requests() == 0 &&
           load.waiting_requests() == 0;
  });
}

grpc::health::v1::HealthCheckResponse::ServingStatus CheckHealth(Stubs& stubs,
                                                                 const std::string& service);

// Greedy, from ids. chunk_size 0: a dense model.
v1::GenerateRequest GreedyRequest(const std::vector<int32_t>& prompt, int32_t chunk_size,
                                  int32_t max_tokens);

}  // namespace catserve::testing

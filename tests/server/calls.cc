#include "tests/server/calls.h"

#include <utility>

#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace catserve::testing {

namespace {

std::shared_ptr<grpc::Channel> Connect(const std::string& address, int buffer_bytes) {
  grpc::ChannelArguments arguments;
  if (buffer_bytes > 0) {
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, buffer_bytes);
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  }
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

std::shared_ptr<grpc::Channel> ConnectTls(const std::string& address,
                                          const grpc::SslCredentialsOptions& tls) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::SslCredentials(tls), arguments);
}

template <typename Reader, typename Message>
grpc::Status ReadAll(Reader& reader, Message message) {
  while (reader.Read(&message)) continue;
  return reader.Finish();
}

}  // namespace

Stubs::Stubs(const std::string& address, int buffer_bytes)
    : Stubs(Connect(address, buffer_bytes)) {}

Stubs::Stubs(const std::string& address, const grpc::SslCredentialsOptions& tls)
    : Stubs(ConnectTls(address, tls)) {}

Stubs::Stubs(std::shared_ptr<grpc::Channel> channel)
    : channel(std::move(channel)),
      generation(v1::Generation::NewStub(this->channel)),
      models(v1::Models::NewStub(this->channel)),
      health(grpc::health::v1::Health::NewStub(this->channel)) {}

Stubs& Stubs::WithToken(const std::string& value) {
  token = value;
  return *this;
}

void Stubs::Prepare(grpc::ClientContext& context) const {
  if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
}

v1::Started Generated::started() const {
  return events.empty() ? v1::Started() : events.front().started();
}

std::string Generated::text(int choice) const {
  std::string text;
  for (const auto& event : events) {
    if (event.has_tokens() && event.tokens().choice_index() == choice) {
      text += event.tokens().text();
    }
  }
  return text;
}

std::vector<int32_t> Generated::ids(int choice) const {
  std::vector<int32_t> ids;
  for (const auto& event : events) {
    if (!event.has_tokens() || event.tokens().choice_index() != choice) continue;
    ids.insert(ids.end(), event.tokens().token_ids().begin(), event.tokens().token_ids().end());
  }
  return ids;
}

std::vector<v1::TokenInfo> Generated::info(int choice) const {
  std::vector<v1::TokenInfo> info;
  for (const auto& event : events) {
    if (!event.has_tokens() || event.tokens().choice_index() != choice) continue;
    info.insert(info.end(), event.tokens().info().begin(), event.tokens().info().end());
  }
  return info;
}

v1::ChoiceFinished Generated::choice_end(int choice) const {
  for (const auto& event : events) {
    if (event.has_choice_finished() && event.choice_finished().choice_index() == choice) {
      return event.choice_finished();
    }
  }
  return {};
}

v1::Finished Generated::finished() const {
  return events.empty() ? v1::Finished() : events.back().finished();
}

GenerateCall::GenerateCall(Stubs& stubs, const v1::GenerateRequest& request, absl::Time deadline) {
  if (deadline != absl::InfiniteFuture()) context_.set_deadline(absl::ToChronoTime(deadline));
  stubs.Prepare(context_);
  reader_ = stubs.generation->Generate(&context_, request);
}

bool GenerateCall::Read() {
  v1::GenerateResponse response;
  if (!reader_->Read(&response)) return false;
  so_far_.events.push_back(response);
  return true;
}

bool GenerateCall::ReadTokens() {
  while (Read()) {
    if (so_far_.events.back().has_tokens()) return true;
  }
  return false;
}

Generated GenerateCall::Finish() {
  while (Read()) continue;
  so_far_.status = reader_->Finish();
  const auto& trailing = context_.GetServerTrailingMetadata();
  if (const auto it = trailing.find("grpc-retry-pushback-ms"); it != trailing.end()) {
    so_far_.pushback = std::string(it->second.begin(), it->second.end());
  }
  return so_far_;
}

Generated Generate(Stubs& stubs, const v1::GenerateRequest& request) {
  return GenerateCall(stubs, request).Finish();
}

Scored Score(Stubs& stubs, const v1::ScoreRequest& request) {
  grpc::ClientContext context;
  stubs.Prepare(context);
  const auto reader = stubs.generation->Score(&context, request);
  Scored scored;
  v1::ScoreResponse response;
  while (reader->Read(&response)) {
    if (response.has_started()) scored.started = response.started();
    if (response.has_finished()) scored.finished = response.finished();
    for (const v1::TokenInfo& token : response.scores().tokens()) scored.tokens.push_back(token);
  }
  scored.status = reader->Finish();
  return scored;
}

v1::GetLoadResponse GetLoad(Stubs& stubs) {
  grpc::ClientContext context;
  stubs.Prepare(context);
  v1::GetLoadResponse load;
  const grpc::Status status = stubs.models->GetLoad(&context, {}, &load);
  if (!status.ok()) load.set_running_requests(-1);
  return load;
}

grpc::Status CallMethod(Stubs& stubs, const std::string& method) {
  grpc::ClientContext context;
  stubs.Prepare(context);
  const v1::GenerateRequest generate = GreedyRequest({1, 2}, 4, 1);
  if (method == "Generate") {
    return ReadAll(*stubs.generation->Generate(&context, generate), v1::GenerateResponse());
  }
  if (method == "Score") {
    v1::ScoreRequest score;
    *score.mutable_text() = generate.prompt();
    score.set_chunk_size(4);
    return ReadAll(*stubs.generation->Score(&context, score), v1::ScoreResponse());
  }
  if (method == "Tokenize") {
    v1::TokenizeRequest tokenize;
    tokenize.set_text("a");
    v1::TokenizeResponse response;
    return stubs.generation->Tokenize(&context, tokenize, &response);
  }
  if (method == "Detokenize") {
    v1::DetokenizeResponse response;
    return stubs.generation->Detokenize(&context, {}, &response);
  }
  if (method == "Abort") {
    v1::AbortRequest abort;
    abort.set_request_id("x");
    v1::AbortResponse response;
    return stubs.generation->Abort(&context, abort, &response);
  }
  v1::GetModelResponse model;
  v1::GetLoadResponse load;
  return method == "GetModel" ? stubs.models->GetModel(&context, {}, &model)
                              : stubs.models->GetLoad(&context, {}, &load);
}

bool Abort(Stubs& stubs, const std::string& id) {
  grpc::ClientContext context;
  stubs.Prepare(context);
  v1::AbortRequest request;
  request.set_request_id(id);
  v1::AbortResponse response;
  const grpc::Status status = stubs.generation->Abort(&context, request, &response);
  return status.ok() && response.found();
}

grpc::health::v1::HealthCheckResponse::ServingStatus CheckHealth(Stubs& stubs,
                                                                 const std::string& service) {
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::health::v1::HealthCheckResponse response;
  const grpc::Status status = stubs.health->Check(&context, request, &response);
  return status.ok() ? response.status() : grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN;
}

v1::GenerateRequest GreedyRequest(const std::vector<int32_t>& prompt, int32_t chunk_size,
                                  int32_t max_tokens) {
  v1::GenerateRequest request;
  request.mutable_prompt()->mutable_token_ids()->mutable_ids()->Add(prompt.begin(), prompt.end());
  if (chunk_size > 0) request.mutable_budget()->set_chunk_size(chunk_size);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(max_tokens);
  return request;
}

}  // namespace catserve::testing

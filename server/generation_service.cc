#include "server/generation_service.h"

#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/text/utf8.h"
#include "server/field_names.h"
#include "server/generate_reply.h"
#include "server/score_reply.h"
#include "server/trace_context.h"
#include "server/wire.h"

namespace catserve {
namespace {

absl::Time Deadline(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  return deadline == std::chrono::system_clock::time_point::max() ? absl::InfiniteFuture()
                                                                  : absl::FromChrono(deadline);
}

// `method`: a literal. The caller's trace goes on, or a new one begins.
RequestTrace NewTrace(const char* method, absl::Time received, const std::string& id,
                      const Request& request, const grpc::CallbackServerContext& context) {
  RequestTrace trace{.method = method, .request_id = id, .owner = request.owner};
  const auto [first, last] = context.client_metadata().equal_range(kTraceparentKey);
  std::optional<std::string> trace_id;
  if (std::distance(first, last) == 1) {
    trace_id = TraceIdOf({first->second.data(), first->second.size()});
  }
  trace.trace_id = trace_id ? *std::move(trace_id) : NewTraceId();
  trace.prompt_tokens = static_cast<int32_t>(request.prompt.size());
  trace.choices = request.choices;
  trace.received = received;
  return trace;
}

}  // namespace

GenerationService::Stream* GenerationService::StreamOrRefusal(grpc::CallbackServerContext* context,
                                                              const grpc::ByteBuffer& message,
                                                              const Method& method) {
  const absl::Time received = absl::Now();
  const absl::StatusOr<Caller> caller = parts_.desk.access->Identify(*context);
  const absl::StatusOr<Stream*> stream =
      caller.ok() ? (this->*method.start)({*context, message, *caller, received}) : caller.status();
  if (stream.ok()) return *stream;
  AddPushback(*context, stream.status());
  const grpc::Status status = ToGrpc(NameFieldsByPath(*method.request, stream.status()));
  parts_.desk.metrics->CountRequest(method.name, status.error_code());
  return new Refusal(status);
}

GenerationService::Stream* GenerationService::Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* message) {
  return StreamOrRefusal(
      context, *message,
      {"Generate", v1::GenerateRequest::descriptor(), &GenerationService::StartGenerate});
}

GenerationService::Stream* GenerationService::Score(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* message) {
  return StreamOrRefusal(context, *message,
                         {"Score", v1::ScoreRequest::descriptor(), &GenerationService::StartScore});
}

TokenStream::Parts GenerationService::StreamParts(const ServedModel& model, const Arrival& arrival,
                                                  ReadRequest& read) const {
  Request& request = read.request;
  request.deadline = Deadline(arrival.context);
  request.owner = arrival.caller.name;
  request.cache_salt = OwnSalt(arrival.caller, request.cache_salt);
  TokenStream::Parts parts{model.engine, parts_.delivery, parts_.live, &arrival.context};
  parts.request = {request.owner, read.id};
  parts.reader_lag_tokens_max = parts_.reader_lag_tokens_max;
  return parts;
}

absl::StatusOr<GenerationService::Stream*> GenerationService::StartGenerate(
    const Arrival& arrival) {
  const absl::StatusOr<const ServedModel*> model = parts_.gate->Enter();
  if (!model.ok()) return model.status();
  absl::StatusOr<std::unique_ptr<Seat>> seat = arrival.caller.Enter(arrival.received);
  if (!seat.ok()) return seat.status();
  const absl::StatusOr<v1::GenerateRequest> message = Parse<v1::GenerateRequest>(arrival.message);
  if (!message.ok()) return message.status();
  absl::StatusOr<ReadRequest> read = ReadGenerate(*message, **model);
  if (!read.ok()) return read.status();

  TokenStream::Parts parts = StreamParts(**model, arrival, *read);
  const Request& request = read->request;
  GenerateReply::Options options;
  options.request_id = read->id;
  options.seed = request.sampling.seed;
  options.logprobs = request.sampling.logprobs >= 0;
  options.stop_ids = request.stop.stop_ids;
  options.min_tokens = request.stop.min_tokens;
  options.text = std::move(read->text);
  Metrics& metrics = *parts_.desk.metrics;
  parts.reply = std::make_unique<GenerateReply>(**model, metrics, std::move(options));
  parts.meter = std::make_unique<RequestMeter>(
      metrics, NewTrace("Generate", arrival.received, read->id, request, arrival.context));
  parts.seat = *std::move(seat);
  return TokenStream::Start(std::move(parts), std::move(read->request));
}

absl::StatusOr<GenerationService::Stream*> GenerationService::StartScore(const Arrival& arrival) {
  const absl::StatusOr<const ServedModel*> model = parts_.gate->Enter();
  if (!model.ok()) return model.status();
  absl::StatusOr<std::unique_ptr<Seat>> seat = arrival.caller.Enter(arrival.received);
  if (!seat.ok()) return seat.status();
  const absl::StatusOr<v1::ScoreRequest> message = Parse<v1::ScoreRequest>(arrival.message);
  if (!message.ok()) return message.status();
  absl::StatusOr<ReadRequest> read = ReadScore(*message, **model);
  if (!read.ok()) return read.status();

  TokenStream::Parts parts = StreamParts(**model, arrival, *read);
  parts.reply = std::make_unique<ScoreReply>(**model, read->id);
  parts.meter = std::make_unique<RequestMeter>(
      *parts_.desk.metrics,
      NewTrace("Score", arrival.received, read->id, read->request, arrival.context));
  parts.seat = *std::move(seat);
  return TokenStream::Start(std::move(parts), std::move(read->request));
}

grpc::ServerUnaryReactor* GenerationService::Tokenize(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* message,
                                                      grpc::ByteBuffer* response) {
  return Answer(parts_.desk, context, "Tokenize", response,
                [&](const Caller&) { return Tokens(*message); });
}

grpc::ServerUnaryReactor* GenerationService::Detokenize(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* message,
                                                        grpc::ByteBuffer* response) {
  return Answer(parts_.desk, context, "Detokenize", response,
                [&](const Caller&) { return Text(*message); });
}

grpc::ServerUnaryReactor* GenerationService::Abort(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* message,
                                                   grpc::ByteBuffer* response) {
  return Answer(parts_.desk, context, "Abort", response,
                [&](const Caller& caller) { return EndRequest(caller, *message); });
}

absl::StatusOr<v1::TokenizeResponse> GenerationService::Tokens(
    const grpc::ByteBuffer& bytes) const {
  const absl::StatusOr<const ServedModel*> model = parts_.gate->Model();
  if (!model.ok()) return model.status();
  const absl::StatusOr<v1::TokenizeRequest> message = Parse<v1::TokenizeRequest>(bytes);
  if (!message.ok()) return message.status();
  const absl::StatusOr<std::vector<TokenId>> ids =
      EncodeText(message->text(), message->add_bos(), message->parse_special(), **model);
  if (absl::IsInvalidArgument(ids.status())) {
    return absl::InvalidArgumentError(absl::StrCat("text: ", ids.status().message()));
  }
  if (!ids.ok()) return ids.status();
  v1::TokenizeResponse response;
  response.mutable_token_ids()->Add(ids->begin(), ids->end());
  return response;
}

absl::StatusOr<v1::DetokenizeResponse> GenerationService::Text(
    const grpc::ByteBuffer& bytes) const {
  const absl::StatusOr<const ServedModel*> model = parts_.gate->Model();
  if (!model.ok()) return model.status();
  const absl::StatusOr<v1::DetokenizeRequest> message = Parse<v1::DetokenizeRequest>(bytes);
  if (!message.ok()) return message.status();
  const absl::StatusOr<const Tokenizer*> tokenizer = RequireTokenizer(**model);
  if (!tokenizer.ok()) return tokenizer.status();
  if (message->token_ids_size() > kDetokenizeIdsMax) {
    return absl::InvalidArgumentError(absl::StrCat("token_ids has ", message->token_ids_size(),
                                                   " ids; allowed: at most ", kDetokenizeIdsMax));
  }
  for (const TokenId id : message->token_ids()) {
    if (!(*tokenizer)->Valid(id)) {
      return absl::InvalidArgumentError(absl::StrCat("token_ids: token id ", id,
                                                     " is not in the vocabulary; allowed: 0 to ",
                                                     (*tokenizer)->info().vocab_size - 1));
    }
  }
  v1::DetokenizeResponse response;
  response.set_text_bytes((*tokenizer)
                              ->Decode(std::span<const TokenId>(message->token_ids().data(),
                                                                message->token_ids_size())));
  response.set_text(ReplaceInvalidUtf8(response.text_bytes()));
  return response;
}

absl::StatusOr<v1::AbortResponse> GenerationService::EndRequest(
    const Caller& caller, const grpc::ByteBuffer& bytes) const {
  const absl::StatusOr<v1::AbortRequest> message = Parse<v1::AbortRequest>(bytes);
  if (!message.ok()) return message.status();
  if (auto status = CheckRequestId(message->request_id()); !status.ok()) return status;
  const std::shared_ptr<TokenStream> stream =
      parts_.live->Find({caller.name, message->request_id()});
  if (stream != nullptr) stream->Abort();
  v1::AbortResponse response;
  response.set_found(stream != nullptr);
  return response;
}

}  // namespace catserve

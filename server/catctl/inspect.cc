// catctl model, load, tokenize, wait: one question, one answer.
#include <cstdio>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/util/json_util.h"
#include "server/catctl/commands.h"
#include "server/catctl/dial_table.h"
#include "server/catctl/flags.h"

namespace catserve {
namespace {

constexpr double kWaitSeconds = 60;

int PrintJson(const google::protobuf::Message& message) {
  std::string json;
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  (void)google::protobuf::util::MessageToJsonString(message, &json, options);
  std::printf("%s\n", json.c_str());
  return kExitOk;
}

std::string Describe(const v1::Budget& budget) {
  if (budget.has_chunk_size()) return absl::StrCat("chunk size ", budget.chunk_size());
  if (!budget.has_auto_()) return "none (dense)";
  const v1::AutoBudget& bounds = budget.auto_();
  std::string text =
      absl::StrCat("auto, ", bounds.chunk_size_min(), " to ", bounds.chunk_size_max());
  if (bounds.has_quality_loss_max()) {
    absl::StrAppend(&text, ", quality_loss_max ", bounds.quality_loss_max());
  }
  if (bounds.has_quality_task()) absl::StrAppend(&text, ", quality_task ", bounds.quality_task());
  return text;
}

}  // namespace

int ModelCommand(const Client& client, const std::vector<std::string>&) {
  Call call(client);
  v1::GetModelResponse model;
  const grpc::Status status = client.models->GetModel(&call.context, {}, &model);
  if (!status.ok()) return Fail(status, client);
  if (absl::GetFlag(FLAGS_json)) return PrintJson(model);
  std::printf("%s: %s, %s parameters, weights %s, KV %s, on %s\n", model.name().c_str(),
              model.kind().c_str(), absl::StrCat(model.parameters()).c_str(),
              model.weight_dtype().c_str(), model.kv_dtype().c_str(), model.engine().c_str());
  std::printf("context %d tokens, vocabulary %d, %d slots, default budget: %s\n",
              model.context_limit(), model.vocabulary_size(), model.slots(),
              Describe(model.default_budget()).c_str());
  std::fputs(DialTable(model).c_str(), stdout);
  return kExitOk;
}

int LoadCommand(const Client& client, const std::vector<std::string>&) {
  Call call(client);
  v1::GetLoadResponse load;
  const grpc::Status status = client.models->GetLoad(&call.context, {}, &load);
  if (!status.ok()) return Fail(status, client);
  if (absl::GetFlag(FLAGS_json)) return PrintJson(load);
  std::printf(
      "running %d (%d paused), waiting %d, KV pages %s used, %s cached of %s (%s bytes)%s\n",
      load.running_requests(), load.paused_requests(), load.waiting_requests(),
      absl::StrCat(load.kv_pages_used()).c_str(), absl::StrCat(load.kv_pages_cached()).c_str(),
      absl::StrCat(load.kv_pages_total()).c_str(), absl::StrCat(load.kv_bytes_total()).c_str(),
      load.draining() ? ", draining" : "");
  return kExitOk;
}

int TokenizeCommand(const Client& client, const std::vector<std::string>& words) {
  if (words.empty()) return FailUsage("tokenize needs a text: catctl tokenize \"Once upon\"");
  Call call(client);
  v1::TokenizeRequest request;
  request.set_text(absl::StrJoin(words, " "));
  v1::TokenizeResponse response;
  const grpc::Status status = client.generation->Tokenize(&call.context, request, &response);
  if (!status.ok()) return Fail(status, client);
  std::printf("%s\n", absl::StrJoin(response.token_ids(), " ").c_str());
  return kExitOk;
}

int WaitCommand(const Client& client, const std::vector<std::string>&) {
  Call call(client, kWaitSeconds);
  call.context.set_wait_for_ready(true);
  grpc::health::v1::HealthCheckRequest request;
  request.set_service("readiness");
  const auto stream = client.health->Watch(&call.context, request);
  grpc::health::v1::HealthCheckResponse response;
  while (stream->Read(&response)) {
    if (response.status() != grpc::health::v1::HealthCheckResponse::SERVING) continue;
    call.context.TryCancel();
    while (stream->Read(&response)) continue;
    (void)stream->Finish();
    return kExitOk;
  }
  return Fail(stream->Finish(), client);
}

}  // namespace catserve

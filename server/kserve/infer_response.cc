#include "server/kserve/infer_response.h"

#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"

namespace catserve::kserve {
namespace {

// "stop", "length", ...: the contract's names without their prefix.
std::string ReasonName(v1::FinishReason reason) {
  const std::string& name = v1::FinishReason_Name(reason);
  return absl::AsciiStrToLower(absl::StripPrefix(name, "FINISH_REASON_"));
}

// As raw contents carry a text: its length in 4 bytes, and the bytes.
std::string RawText(const std::string& text) {
  const auto length = static_cast<uint32_t>(text.size());
  std::string raw(sizeof(length), '\0');
  std::memcpy(raw.data(), &length, sizeof(length));
  return raw + text;
}

std::string RawIds(const v1::TokenIds& ids) {
  return std::string(reinterpret_cast<const char*>(ids.ids().data()),
                     sizeof(int32_t) * ids.ids_size());
}

}  // namespace

void InferAnswer::Add(const v1::GenerateResponse& event) {
  if (event.has_tokens()) {
    text_ += event.tokens().text();
    ids_.mutable_ids()->MergeFrom(event.tokens().token_ids());
  } else if (event.has_choice_finished()) {
    choice_ = event.choice_finished();
  } else if (event.has_finished()) {
    usage_ = event.finished().usage();
    finished_ = true;
  }
}

void InferAnswer::AddTensor(const char* name, const char* datatype, int64_t elements,
                            std::string raw, inference::ModelInferResponse& out) const {
  auto& tensor = *out.add_outputs();
  tensor.set_name(name);
  tensor.set_datatype(datatype);
  tensor.add_shape(elements);
  out.add_raw_output_contents(std::move(raw));
}

void InferAnswer::AddUsage(inference::ModelInferResponse& out) const {
  auto& parameters = *out.mutable_parameters();
  parameters["finish_reason"].set_string_param(ReasonName(choice_.reason()));
  if (choice_.has_stop()) parameters["stop"].set_string_param(choice_.stop());
  parameters["prompt_tokens"].set_int64_param(usage_.prompt_tokens());
  parameters["cached_tokens"].set_int64_param(usage_.cached_tokens());
  parameters["generated_tokens"].set_int64_param(usage_.generated_tokens());
  parameters["chunk_size"].set_int64_param(usage_.chunk_size());
  parameters["budget_changes"].set_int64_param(usage_.budget_changes_size());
  parameters["kv_bytes_peak"].set_int64_param(usage_.kv_bytes_peak());
  parameters["kv_bytes_dense_twin"].set_int64_param(usage_.kv_bytes_dense_twin());
}

inference::ModelInferResponse InferAnswer::Take() {
  inference::ModelInferResponse out;
  out.set_model_name(model_name_);
  out.set_model_version(kVersion);
  out.set_id(id_);
  (*out.mutable_parameters())["triton_final_response"].set_bool_param(finished_);
  if (text_wanted_) AddTensor(kTextOutput, "BYTES", 1, RawText(text_), out);
  if (ids_wanted_) AddTensor(kIdsOutput, "INT32", ids_.ids_size(), RawIds(ids_), out);
  if (finished_) AddUsage(out);
  text_.clear();
  ids_.clear_ids();
  return out;
}

}  // namespace catserve::kserve

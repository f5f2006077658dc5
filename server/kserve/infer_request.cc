#include "server/kserve/infer_request.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/text/utf8.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace catserve::kserve {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using inference::InferParameter;
using Input = inference::ModelInferRequest::InferInputTensor;

// -- Parameters -----------------------------------------------------------------------------------

struct Parameter {
  absl::string_view name;
  absl::string_view path;  // in GenerateRequest
};

constexpr Parameter kParameters[] = {
    {"chunk_size", "budget.chunk_size"},
    {"chunk_size_min", "budget.auto.chunk_size_min"},
    {"chunk_size_max", "budget.auto.chunk_size_max"},
    {"kv_bytes_max", "budget.auto.kv_bytes_max"},
    {"quality_loss_max", "budget.auto.quality_loss_max"},
    {"quality_task", "budget.auto.quality_task"},
    {"temperature", "sampling.temperature"},
    {"top_k", "sampling.top_k"},
    {"top_p", "sampling.top_p"},
    {"min_p", "sampling.min_p"},
    {"repetition_penalty", "sampling.repetition_penalty"},
    {"presence_penalty", "sampling.presence_penalty"},
    {"frequency_penalty", "sampling.frequency_penalty"},
    {"seed", "sampling.seed"},
    {"max_tokens", "stopping.max_tokens"},
    {"min_tokens", "stopping.min_tokens"},
    {"stop", "stopping.stop"},
    {"ignore_eos", "stopping.ignore_eos"},
    {"include_stop", "stopping.include_stop"},
    {"add_bos", "prompt.add_bos"},
    {"parse_special", "prompt.parse_special"},
    {"priority", "priority"},
    {"cache_salt", "cache_salt"},
    {"bypass_prefix_cache", "bypass_prefix_cache"},
    {"time_limit_ms", "time_limit_ms"},
};

// Clients of the protocol send these by themselves; they ask for what happens anyway.
constexpr absl::string_view kIgnored[] = {"triton_enable_empty_final_response"};
constexpr char kTimeout[] = "timeout";  // the protocol's own, in microseconds

std::optional<int64_t> Integer(const InferParameter& value) {
  if (value.has_int64_param()) return value.int64_param();
  constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
  if (value.has_uint64_param() && value.uint64_param() <= kMax) {
    return static_cast<int64_t>(value.uint64_param());
  }
  return std::nullopt;
}

std::optional<double> Number(const InferParameter& value) {
  if (value.has_double_param()) return value.double_param();
  if (const auto integer = Integer(value)) return static_cast<double>(*integer);
  return std::nullopt;
}

absl::Status WrongType(absl::string_view name, absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat("parameter ", name, ": not ", wanted));
}

absl::Status SetInteger(absl::string_view name, const InferParameter& value,
                        const FieldDescriptor& field, Message& message) {
  const Reflection& reflection = *message.GetReflection();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64) {
    const std::optional<int64_t> integer = Integer(value);
    if (value.has_uint64_param()) {
      reflection.SetUInt64(&message, &field, value.uint64_param());
    } else if (integer.has_value() && *integer >= 0) {
      reflection.SetUInt64(&message, &field, static_cast<uint64_t>(*integer));
    } else {
      return WrongType(name, "an integer of 0 or more");
    }
    return absl::OkStatus();
  }
  const std::optional<int64_t> integer = Integer(value);
  const bool wide = field.cpp_type() == FieldDescriptor::CPPTYPE_INT64;
  if (!integer.has_value() ||
      (!wide && *integer != static_cast<int64_t>(static_cast<int32_t>(*integer)))) {
    return WrongType(name, wide ? "an integer" : "an integer of 32 bits");
  }
  if (wide) {
    reflection.SetInt64(&message, &field, *integer);
  } else {
    reflection.SetInt32(&message, &field, static_cast<int32_t>(*integer));
  }
  return absl::OkStatus();
}

absl::Status SetField(absl::string_view name, const InferParameter& value,
                      const FieldDescriptor& field, Message& message) {
  const Reflection& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      if (!value.has_bool_param()) return WrongType(name, "a boolean");
      reflection.SetBool(&message, &field, value.bool_param());
      return absl::OkStatus();
    case FieldDescriptor::CPPTYPE_FLOAT:
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      const std::optional<double> number = Number(value);
      if (!number.has_value()) return WrongType(name, "a number");
      if (field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE) {
        reflection.SetDouble(&message, &field, *number);
      } else {
        reflection.SetFloat(&message, &field, static_cast<float>(*number));
      }
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_STRING:
      if (!value.has_string_param()) return WrongType(name, "a string");
      if (field.is_repeated()) {
        reflection.AddString(&message, &field, value.string_param());
      } else {
        reflection.SetString(&message, &field, value.string_param());
      }
      return absl::OkStatus();
    default: return SetInteger(name, value, field, message);
  }
}

absl::Status SetParameter(const Parameter& parameter, const InferParameter& value,
                          v1::GenerateRequest& request) {
  Message* message = &request;
  const FieldDescriptor* field = nullptr;
  for (const absl::string_view part : absl::StrSplit(parameter.path, '.')) {
    if (field != nullptr) message = message->GetReflection()->MutableMessage(message, field);
    field = message->GetDescriptor()->FindFieldByName(std::string(part));
  }
  return SetField(parameter.name, value, *field, *message);
}

absl::Status SetTimeout(const InferParameter& value, v1::GenerateRequest& request) {
  const std::optional<int64_t> microseconds = Integer(value);
  if (!microseconds.has_value() || *microseconds < 0) {
    return WrongType(kTimeout, "a number of microseconds");
  }
  if (*microseconds > 0) request.set_time_limit_ms((*microseconds - 1) / 1000 + 1);  // 0: none
  return absl::OkStatus();
}

absl::Status UnknownParameter(absl::string_view name) {
  const auto append_name = [](std::string* out, const Parameter& p) {
    absl::StrAppend(out, p.name);
  };
  return absl::InvalidArgumentError(absl::StrCat(
      "parameter ", name, " is not known; allowed: ", absl::StrJoin(kParameters, ", ", append_name),
      ", ", kTimeout));
}

absl::Status ReadParameters(const inference::ModelInferRequest& message,
                            v1::GenerateRequest& request) {
  if (message.parameters().contains("chunk_size")) {
    for (const Parameter& other : kParameters) {
      if (!absl::StartsWith(other.path, "budget.auto.")) continue;
      if (message.parameters().count(std::string(other.name)) == 0) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("parameter ", other.name,
                       ": belongs to an automatic budget; not together with chunk_size"));
    }
  }
  for (const auto& [name, value] : message.parameters()) {
    if (std::count(std::begin(kIgnored), std::end(kIgnored), name) > 0) continue;
    const auto* known = std::find_if(std::begin(kParameters), std::end(kParameters),
                                     [&name = name](const Parameter& p) { return p.name == name; });
    absl::Status status = name == kTimeout                 ? SetTimeout(value, request)
                          : known == std::end(kParameters) ? UnknownParameter(name)
                                                           : SetParameter(*known, value, request);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// -- Tensors --------------------------------------------------------------------------------------

static_assert(std::endian::native == std::endian::little, "raw contents are read as they lie");
template <typename T>
T Load(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

absl::Status BadInput(const Input& input, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("input ", input.name(), ": ", what));
}

// Elements of a tensor of one row: shape [n] or [1, n].
absl::StatusOr<int64_t> Elements(const Input& input) {
  const int dimensions = input.shape_size();
  const bool one_row = dimensions == 1 || (dimensions == 2 && input.shape(0) == 1);
  if (dimensions > 8) return BadInput(input, "more than 8 dimensions; allowed: [n] or [1, n]");
  if (!one_row || input.shape(dimensions - 1) < 1) {
    return BadInput(input, absl::StrCat("shape [", absl::StrJoin(input.shape(), ", "),
                                        "]; allowed: [n] or [1, n], n of 1 or more"));
  }
  return input.shape(dimensions - 1);
}

absl::StatusOr<std::string> ReadText(const Input& input, const std::string* raw) {
  const absl::StatusOr<int64_t> elements = Elements(input);
  if (!elements.ok()) return elements.status();
  if (input.datatype() != "BYTES" || *elements != 1) {
    return BadInput(input, "not one element of type BYTES");
  }
  if (raw == nullptr) {
    if (input.contents().bytes_contents_size() != 1) {
      return BadInput(input, "contents do not hold one element in bytes_contents");
    }
    return input.contents().bytes_contents(0);
  }
  constexpr size_t kLengthBytes = 4;
  if (raw->size() < kLengthBytes || Load<uint32_t>(raw->data()) != raw->size() - kLengthBytes) {
    return BadInput(input, "raw contents are not a length of 4 bytes and so many bytes");
  }
  return raw->substr(kLengthBytes);
}

absl::Status AddId(const Input& input, int64_t id, v1::TokenIds& out) {
  if (id != static_cast<int64_t>(static_cast<int32_t>(id))) {
    return BadInput(input, absl::StrCat(id, " is no token id"));
  }
  out.add_ids(static_cast<int32_t>(id));
  return absl::OkStatus();
}

absl::Status ReadRawIds(const Input& input, const std::string& raw, int64_t elements,
                        v1::TokenIds& out) {
  const size_t width = input.datatype() == "INT64" ? 8 : 4;
  if (raw.size() % width != 0 || raw.size() / width != static_cast<size_t>(elements)) {
    return BadInput(
        input, absl::StrCat("raw contents have ", raw.size(), " bytes; the shape needs ", width,
                            " for each of ", elements, " elements"));
  }
  for (size_t at = 0; at < raw.size(); at += width) {
    const char* const from = raw.data() + at;
    const int64_t id = width == 8 ? Load<int64_t>(from) : Load<int32_t>(from);
    if (absl::Status status = AddId(input, id, out); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ReadIds(const Input& input, const std::string* raw, v1::TokenIds& out) {
  const absl::StatusOr<int64_t> elements = Elements(input);
  if (!elements.ok()) return elements.status();
  const bool wide = input.datatype() == "INT64";
  if (!wide && input.datatype() != "INT32") return BadInput(input, "not of type INT32 or INT64");
  if (raw != nullptr) return ReadRawIds(input, *raw, *elements, out);
  const inference::InferTensorContents& contents = input.contents();
  if (*elements != (wide ? contents.int64_contents_size() : contents.int_contents_size())) {
    return BadInput(input, "shape and contents have different numbers of elements");
  }
  if (!wide) {
    out.mutable_ids()->CopyFrom(contents.int_contents());
    return absl::OkStatus();
  }
  for (const int64_t id : contents.int64_contents()) {
    if (absl::Status status = AddId(input, id, out); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ReadPrompt(const inference::ModelInferRequest& message, v1::Prompt& prompt) {
  if (message.inputs_size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat("expected 1 input, ", kTextInput, " or ",
                                                   kIdsInput, ", got ", message.inputs_size()));
  }
  const bool raw = message.raw_input_contents_size() > 0;
  if (raw && message.raw_input_contents_size() != message.inputs_size()) {
    return absl::InvalidArgumentError("raw_input_contents: not one for each input");
  }
  const Input& input = message.inputs(0);
  if (raw && input.has_contents()) {
    return BadInput(input, "both contents and raw_input_contents; send one of them");
  }
  const std::string* const bytes = raw ? &message.raw_input_contents(0) : nullptr;
  if (input.name() == kIdsInput) return ReadIds(input, bytes, *prompt.mutable_token_ids());
  if (input.name() != kTextInput) {
    return absl::InvalidArgumentError(absl::StrCat("unexpected inference input '", input.name(),
                                                   "'; allowed: ", kTextInput, " or ", kIdsInput));
  }
  absl::StatusOr<std::string> text = ReadText(input, bytes);
  if (!text.ok()) return text.status();
  if (const auto offset = FirstInvalidUtf8(*text)) {
    return BadInput(input, absl::StrCat("no valid UTF-8 at byte ", *offset));
  }
  prompt.set_text(*std::move(text));
  return absl::OkStatus();
}

absl::Status ReadOutputs(const inference::ModelInferRequest& message, InferRequest& request) {
  if (message.outputs().empty()) return absl::OkStatus();  // all
  request.text = request.ids = false;
  for (const auto& output : message.outputs()) {
    if (output.name() != kTextOutput && output.name() != kIdsOutput) {
      return absl::InvalidArgumentError(absl::StrCat("unexpected inference output '", output.name(),
                                                     "'; allowed: ", kTextOutput, " and ",
                                                     kIdsOutput));
    }
    request.text = request.text || output.name() == kTextOutput;
    request.ids = request.ids || output.name() == kIdsOutput;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<InferRequest> ReadInfer(const inference::ModelInferRequest& message) {
  if (message.id().size() > kIdBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("id has ", message.id().size(), " bytes; allowed: at most ", kIdBytesMax));
  }
  InferRequest request;
  absl::Status status = ReadPrompt(message, *request.generate.mutable_prompt());
  if (status.ok()) status = ReadParameters(message, request.generate);
  if (status.ok()) status = ReadOutputs(message, request);
  if (!status.ok()) return status;
  return request;
}

absl::Status CheckModel(absl::string_view name, absl::string_view version,
                        absl::string_view served) {
  if (name != served) {
    return absl::NotFoundError(absl::StrCat("Request for unknown model: '", name,
                                            "' is not found; this server has '", served, "'"));
  }
  if (!version.empty() && version != kVersion) {
    return absl::NotFoundError(absl::StrCat("Request for unknown model: '", name, "' version ",
                                            version, " is not found; there is only version ",
                                            kVersion));
  }
  return absl::OkStatus();
}

}  // namespace catserve::kserve

#include "server/kserve/description.h"

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/kserve/infer_request.h"

namespace catserve::kserve {
namespace {

constexpr char kPlatform[] = "catserve";
constexpr int64_t kAny = -1;

struct Tensor {
  const char* name;
  const char* datatype;
  inference::DataType data_type;
  int64_t elements;
};
constexpr Tensor kInputs[] = {{kTextInput, "BYTES", inference::TYPE_STRING, 1},
                              {kIdsInput, "INT32", inference::TYPE_INT32, kAny}};
constexpr Tensor kOutputs[] = {{kTextOutput, "BYTES", inference::TYPE_STRING, 1},
                               {kIdsOutput, "INT32", inference::TYPE_INT32, kAny}};

void Describe(const Tensor& tensor, inference::ModelMetadataResponse::TensorMetadata& out) {
  out.set_name(tensor.name);
  out.set_datatype(tensor.datatype);
  out.add_shape(tensor.elements);
}

}  // namespace

inference::ModelMetadataResponse DescribeTensors(const ServedModel& model) {
  inference::ModelMetadataResponse out;
  out.set_name(model.name);
  out.add_versions(std::string(kVersion));
  out.set_platform(kPlatform);
  for (const Tensor& tensor : kInputs) Describe(tensor, *out.add_inputs());
  for (const Tensor& tensor : kOutputs) Describe(tensor, *out.add_outputs());
  return out;
}

inference::ModelConfig DescribeConfig(const ServedModel& model) {
  inference::ModelConfig out;
  out.set_name(model.name);
  out.set_platform(kPlatform);
  out.set_backend(kPlatform);
  out.set_max_batch_size(0);  // a request is one sequence; the server batches them
  for (const Tensor& tensor : kInputs) {
    inference::ModelInput& input = *out.add_input();
    input.set_name(tensor.name);
    input.set_data_type(tensor.data_type);
    input.add_dims(tensor.elements);
    input.set_optional(true);  // one of them
  }
  for (const Tensor& tensor : kOutputs) {
    inference::ModelOutput& output = *out.add_output();
    output.set_name(tensor.name);
    output.set_data_type(tensor.data_type);
    output.add_dims(tensor.elements);
  }
  out.mutable_model_transaction_policy()->set_decoupled(true);
  const ModelGeometry& geometry = model.description.geometry;
  auto& parameters = *out.mutable_parameters();
  parameters["kind"].set_string_value(model.description.kind);
  parameters["chunk_sizes"].set_string_value(absl::StrJoin(geometry.chunk_sizes, ","));
  parameters["context_limit"].set_string_value(absl::StrCat(geometry.block_size));
  return out;
}

}  // namespace catserve::kserve

// A request of the KServe v2 protocol in the words of our own contract.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "catserve/v1/generation.pb.h"
#include "inference/kserve.pb.h"

namespace catserve::kserve {

inline constexpr char kTextInput[] = "text_input";    // BYTES, one element
inline constexpr char kIdsInput[] = "input_ids";      // INT32 or INT64, one prompt
inline constexpr char kTextOutput[] = "text_output";  // BYTES, one element
inline constexpr char kIdsOutput[] = "output_ids";    // INT32
inline constexpr char kVersion[] = "1";               // of the one model served
inline constexpr size_t kIdBytesMax = 256;            // of a request's id, which comes back

// What one inference asks for.
struct InferRequest {
  v1::GenerateRequest generate;  // not yet checked against the model
  bool text = true;              // wanted outputs
  bool ids = true;
};

// Errors: INVALID_ARGUMENT naming the tensor or the parameter and what is allowed. Damaged tensors
// (shapes, lengths) are refused; nothing is read beyond them.
absl::StatusOr<InferRequest> ReadInfer(const inference::ModelInferRequest& message);

// OK if the name is `served` and the version none or the only one. Errors: NOT_FOUND.
absl::Status CheckModel(absl::string_view name, absl::string_view version,
                        absl::string_view served);

}  // namespace catserve::kserve

// Answers of the KServe v2 protocol from the events of our own contract.
#pragma once

#include <string>

#include "catserve/v1/generation.pb.h"
#include "inference/kserve.pb.h"
#include "server/kserve/infer_request.h"

namespace catserve::kserve {

// Collects a request's events into responses. Used by one thread at a time.
class InferAnswer {
 public:
  // The request's model name and id come back in every response.
  InferAnswer(const inference::ModelInferRequest& request, const InferRequest& read)
      : model_name_(request.model_name()),
        id_(request.id()),
        text_wanted_(read.text),
        ids_wanted_(read.ids) {}

  void Add(const v1::GenerateResponse& event);

  // True if Take would bring tokens, or the end.
  bool ready() const { return finished_ || ids_.ids_size() > 0; }

  // What was collected since the last call, as tensors; the last response of a request has its
  // finish reason and usage as parameters, and triton_final_response = true.
  inference::ModelInferResponse Take();

 private:
  void AddTensor(const char* name, const char* datatype, int64_t elements, std::string raw,
                 inference::ModelInferResponse& out) const;
  void AddUsage(inference::ModelInferResponse& out) const;

  const std::string model_name_;
  const std::string id_;
  const bool text_wanted_;
  const bool ids_wanted_;
  std::string text_;
  v1::TokenIds ids_;
  v1::ChoiceFinished choice_;
  v1::Usage usage_;
  bool finished_ = false;
};

}  // namespace catserve::kserve

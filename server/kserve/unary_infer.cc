#include "server/kserve/unary_infer.h"

#include "server/refusal.h"

namespace catserve::kserve {

UnaryInfer::UnaryInfer(const Call& call, const InferRequest& read)
    : call_(call),
      answer_(*call.request, read),
      inner_(*call.stub, read.generate, *call.context,
             {.event =
                  [this](const v1::GenerateResponse& event) {
                    answer_.Add(event);
                    inner_.Next();
                  },
              .done = [this](const grpc::Status& status) { OnInnerDone(status); }}) {
  inner_.Start();
}

void UnaryInfer::OnInnerDone(const grpc::Status& status) {
  if (status.ok()) {
    *call_.response = answer_.Take();
  } else if (const std::string pushback = inner_.Pushback(); !pushback.empty()) {
    call_.context->AddTrailingMetadata(kPushbackHeader, pushback);
  }
  Finish(status);
}

}  // namespace catserve::kserve

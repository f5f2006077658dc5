#include "server/kserve/inner_call.h"

#include <utility>

#include "server/access.h"
#include "server/refusal.h"
#include "server/token_stream.h"

namespace catserve::kserve {

InnerCall::InnerCall(v1::Generation::Stub& stub, const v1::GenerateRequest& request,
                     const grpc::CallbackServerContext& outer, Callbacks callbacks)
    : callbacks_(std::move(callbacks)) {
  context_.set_deadline(outer.deadline());
  context_.AddMetadata(kInProcessHeader, "");
  for (const char* key : {"authorization", "traceparent"}) {
    const auto value = outer.client_metadata().find(key);
    if (value == outer.client_metadata().end()) continue;
    context_.AddMetadata(key, std::string(value->second.data(), value->second.size()));
  }
  if (const std::string voucher = Vouch(outer); !voucher.empty()) {
    context_.AddMetadata(kVoucherHeader, voucher);
  }
  stub.async()->Generate(&context_, &request, this);
  AddHold();  // Next comes from outside: not done before the last read has failed
  StartRead(&event_);
}

std::string InnerCall::Pushback() const {
  const auto& trailers = context_.GetServerTrailingMetadata();
  const auto value = trailers.find(kPushbackHeader);
  return value == trailers.end() ? "" : std::string(value->second.data(), value->second.size());
}

void InnerCall::OnReadDone(bool ok) {
  if (ok) {
    callbacks_.event(event_);
  } else {
    RemoveHold();
  }
}

void InnerCall::OnDone(const grpc::Status& status) {
  const auto done = std::move(callbacks_.done);  // it may delete this
  done(status);
}

}  // namespace catserve::kserve

// catserve.v1.Models.
#pragma once

#include "catserve/v1/model.grpc.pb.h"
#include "server/refusal.h"
#include "server/served_model.h"

namespace catserve {

using RawModelService = v1::Models::WithRawCallbackMethod_GetModel<
    v1::Models::WithRawCallbackMethod_GetLoad<v1::Models::Service>>;

class ModelService final : public RawModelService {
 public:
  // REQUIRES: both outlive the service.
  ModelService(const Gate& gate, const Desk& desk) : gate_(gate), desk_(desk) {}

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* message,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer* message,
                                    grpc::ByteBuffer* response) override;

 private:
  const Gate& gate_;
  const Desk desk_;
};

// What GetModel answers.
v1::GetModelResponse DescribeModel(const ServedModel& model);

}  // namespace catserve

// What the KServe v2 protocol tells of the model: its tensors, and the dial as configuration.
#pragma once

#include "inference/kserve.pb.h"
#include "server/served_model.h"

namespace catserve::kserve {

inference::ModelMetadataResponse DescribeTensors(const ServedModel& model);
inference::ModelConfig DescribeConfig(const ServedModel& model);

}  // namespace catserve::kserve

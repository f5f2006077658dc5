#include "server/model_service.h"

#include "server/dial.h"
#include "server/quality.h"
#include "server/refusal.h"
#include "server/usage.h"

namespace catserve {
namespace {

void FillVocabulary(const ServedModel& model, v1::GetModelResponse& out) {
  out.set_vocabulary_size(model.description.geometry.vocab_size);
  if (model.tokenizer == nullptr) return;
  const TokenizerInfo& info = model.tokenizer->info();
  if (info.bos_id >= 0) out.set_bos_token_id(info.bos_id);
  if (info.eos_id >= 0) out.set_eos_token_id(info.eos_id);
}

void FillDial(const ServedModel& model, v1::GetModelResponse& out) {
  const ModelGeometry& geometry = model.description.geometry;
  const double dense = DenseDecodeOperations(model);
  for (const int32_t chunk_size : geometry.chunk_sizes) {
    v1::ChunkSizeInfo& info = *out.add_chunk_sizes();
    info.set_chunk_size(chunk_size);
    info.set_kv_bytes_per_1000_tokens(KvBytesPer1000Tokens(geometry, chunk_size));
    info.set_relative_decode_cost(DecodeOperations(model.description, chunk_size) / dense);
    const auto quality = model.card.heldout_bits_per_byte.find(chunk_size);
    if (quality != model.card.heldout_bits_per_byte.end()) {
      info.set_heldout_bits_per_byte(quality->second);
    }
  }
}

void FillTasks(const ServedModel& model, v1::GetModelResponse& out) {
  for (const QualityTask& task : model.card.tasks) {
    v1::QualityTask& told = *out.add_quality_tasks();
    told.set_name(task.name);
    told.set_measure(task.measure);
    told.set_higher_is_better(task.higher_is_better);
    for (const auto& [chunk_size, loss] : LossOf(task, model.description.geometry)) {
      v1::QualityValue& value = *told.add_values();
      value.set_chunk_size(chunk_size);
      value.set_value(task.values.at(chunk_size));
      value.set_loss(loss);
    }
    if (task.dense_twin.has_value()) told.set_dense_twin(*task.dense_twin);
  }
}

absl::StatusOr<v1::GetLoadResponse> DescribeLoad(const Gate& gate) {
  const absl::StatusOr<const ServedModel*> model = gate.Model();
  if (!model.ok()) return model.status();
  const EngineLoad load = (*model)->engine->Load();
  v1::GetLoadResponse out;
  out.set_running_requests(load.running);
  out.set_waiting_requests(load.waiting);
  out.set_kv_pages_used(load.kv_pages_used);
  out.set_kv_pages_total(load.kv_pages_total);
  out.set_kv_bytes_total(load.kv_pages_total * kPageEntries *
                         (*model)->description.geometry.bytes_per_entry);
  out.set_draining(gate.state() == Gate::State::kDraining);
  out.set_paused_requests(load.paused);
  out.set_kv_pages_cached(load.kv_pages_cached);
  out.set_prefix_query_tokens(load.prefix_query_tokens);
  out.set_prefix_hit_tokens(load.prefix_hit_tokens);
  out.set_budgets_coarsened(load.budgets_coarsened);
  out.set_budgets_refined(load.budgets_refined);
  out.set_preemptions(load.preemptions);
  return out;
}

}  // namespace

v1::GetModelResponse DescribeModel(const ServedModel& model) {
  const ModelDescription& description = model.description;
  v1::GetModelResponse out;
  out.set_name(model.name);
  out.set_kind(description.kind);
  out.set_parameters(description.parameters);
  out.set_weight_dtype(description.weight_dtype);
  out.set_kv_dtype(description.kv_dtype);
  out.set_context_limit(description.geometry.block_size);
  FillVocabulary(model, out);
  FillDial(model, out);
  FillTasks(model, out);
  *out.mutable_default_budget() = model.default_budget;
  out.set_kv_bytes_per_entry(description.geometry.bytes_per_entry);
  out.set_dense_twin_kv_bytes_per_1000_tokens(1000.0 *
                                              static_cast<double>(DenseTwinBytesPerEntry(model)));
  out.set_dense_same_width_kv_bytes_per_1000_tokens(
      1000.0 * static_cast<double>(description.geometry.bytes_per_entry));
  out.set_engine(model.engine_name);
  out.set_slots(model.slots);
  return out;
}

grpc::ServerUnaryReactor* ModelService::GetModel(grpc::CallbackServerContext* context,
                                                 const grpc::ByteBuffer*,
                                                 grpc::ByteBuffer* response) {
  const auto describe = [this](const Caller&) -> absl::StatusOr<v1::GetModelResponse> {
    const absl::StatusOr<const ServedModel*> model = gate_.Model();
    if (!model.ok()) return model.status();
    return DescribeModel(**model);
  };
  return Answer(desk_, context, "GetModel", response, describe);
}

grpc::ServerUnaryReactor* ModelService::GetLoad(grpc::CallbackServerContext* context,
                                                const grpc::ByteBuffer*,
                                                grpc::ByteBuffer* response) {
  return Answer(desk_, context, "GetLoad", response,
                [this](const Caller&) { return DescribeLoad(gate_); });
}

}  // namespace catserve

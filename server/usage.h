// What a request cost, as its client is told.
#pragma once

#include <cstdint>
#include <span>

#include "catserve/v1/generation.pb.h"
#include "engine/schedule/request.h"
#include "server/served_model.h"

namespace catserve {

// Bytes of KV memory, whole pages, that dense models would hold for one sequence of `tokens`.
int64_t DenseTwinBytes(const ServedModel& model, int64_t tokens);  // 0: the card names none
int64_t DenseSameWidthBytes(const ServedModel& model, int64_t tokens);

// Bytes of an entry of the dense twin in this server's KV precision; 0 if the card names none.
int64_t DenseTwinBytesPerEntry(const ServedModel& model);

void FillBudgetChanged(const BudgetChangedEvent& change, v1::BudgetChanged& out);

// `generated`: tokens delivered to the client, of each choice; empty for Score. The engine may have
// drawn a few more past a stop string; the client did not get them.
v1::Usage ToProto(const Usage& usage, const ServedModel& model, std::span<const int32_t> generated);

}  // namespace catserve

// /debug/requests: the running requests and the slowest recent ones, for people and for scripts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/geometry.h"
#include "server/request_trace.h"

namespace catserve {

struct DebugView {
  absl::Time now;
  std::string model;       // empty: none is served yet
  ModelGeometry geometry;  // of that model
  RequestTraces::Running running;
  std::vector<RequestTrace> slowest;
};

// KV memory of a running request by its length: whole pages, shared ones counted in full; 0 while
// it waits for memory, and what its prompt will hold while that is read.
int64_t KvBytesByLength(const RequestTrace& trace, const ModelGeometry& geometry);

// Whatever ids and names say, it stays text. Nothing in the page runs.
std::string DebugHtml(const DebugView& view);
std::string DebugJson(const DebugView& view);

}  // namespace catserve

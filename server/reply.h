// What a stream says to its client, made from what the engine reports.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/schedule/request.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/status.h"

namespace catserve {

// A message carries at most this many tokens, so that it stays far below what clients receive by
// default (4 MiB), also with 20 log-probabilities each.
inline constexpr int32_t kMessageTokensMax = 1024;

// Holds the messages that are not written yet and merges what a slow reader lets pile up. Only the
// delivery thread uses it, so that detokenising never runs on the step thread. Two streaming calls
// with different messages share one TokenStream: hence the interface.
class Reply {
 public:
  virtual ~Reply() = default;

  // REQUIRES: not a FinishedEvent.
  virtual void Add(const Event& event) = 0;

  // The last event: adds the last message and returns OK, or returns the status that ends the call
  // instead. `left`: the client cancelled or its deadline passed, so nobody reads messages.
  virtual grpc::Status Finish(const FinishedEvent& event, bool left) = 0;

  virtual bool empty() const = 0;
  virtual int32_t tokens() const = 0;  // in the messages; 0 where a reader's lag pauses nothing
  virtual grpc::ByteBuffer Pop() = 0;  // the next message; REQUIRES: !empty()

  // Choices whose text met a stop string since the last call: the engine need not go on with them.
  virtual std::vector<int32_t> TakeStoppedChoices() = 0;
};

// The status of a request that the engine ended without `finished`; OK for reasons that have one.
grpc::Status EndStatus(FinishReason reason, bool left);

}  // namespace catserve

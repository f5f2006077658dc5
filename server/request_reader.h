// Messages to requests. Everything that the engine cannot know is checked here; limits of the model
// and of sampling are the engine's (see engine/admission.h) and are not repeated.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "catserve/v1/generation.pb.h"
#include "engine/schedule/request.h"
#include "engine/text/text_stream.h"
#include "server/served_model.h"

namespace catserve {

inline constexpr size_t kRequestIdBytesMax = 128;
inline constexpr int32_t kMaxTokensDefault = 128;
inline constexpr int kStopStringsMax = 16;
inline constexpr size_t kStopStringBytesMax = 256;
inline constexpr int kStopTokenIdsMax = 64;
inline constexpr size_t kCacheSaltBytesMax = 128;

struct ReadRequest {
  std::string id;            // the client's, or made
  Request request;           // all but the deadline
  TextStream::Options text;  // of Generate
};

// Tokenises text prompts. Errors: INVALID_ARGUMENT naming the field and what is allowed,
// FAILED_PRECONDITION for text without a tokenizer.
absl::StatusOr<ReadRequest> ReadGenerate(const v1::GenerateRequest& message,
                                         const ServedModel& model);
absl::StatusOr<ReadRequest> ReadScore(const v1::ScoreRequest& message, const ServedModel& model);

// Text to ids, with the beginning-of-text token in front if asked for and the model has one.
// Errors: as ReadGenerate, without a field.
absl::StatusOr<std::vector<TokenId>> EncodeText(const std::string& text, bool add_bos,
                                                bool parse_special, const ServedModel& model);

// OK for what a client may choose as request id; INVALID_ARGUMENT otherwise.
absl::Status CheckRequestId(const std::string& id);

}  // namespace catserve

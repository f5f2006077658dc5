// The fields of an untrusted JSON object as checked values.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace catserve {

// What a configuration may ask for: far above every known model, far below what overflows.
inline constexpr int64_t kDimMax = 1 << 16;
inline constexpr int64_t kFeedForwardMax = 1 << 18;
inline constexpr int64_t kLayersMax = 1024;
inline constexpr int64_t kHeadsMax = 1024;
inline constexpr int64_t kHeadDimMax = 256;
inline constexpr int64_t kVocabMax = 1 << 22;
inline constexpr int64_t kBlockSizeMax = 1 << 17;
inline constexpr int64_t kChunkSizeMax = 1 << 10;
inline constexpr double kNormEpsMax = 1;
inline constexpr double kRopeBaseMax = 1e12;

// Reads the fields of one object and keeps the first error. Readers return a harmless value after
// an error, so that a caller reads everything first and asks for the status once. An optional field
// (..Or) that is null counts as absent.
class FieldReader {
 public:
  // `where` starts every message: "file: decoder.". REQUIRES: object outlives the reader.
  FieldReader(const nlohmann::json& object, std::string where)
      : object_(object), where_(std::move(where)) {}

  int32_t Int(const char* name, int64_t min, int64_t max);
  int32_t IntOr(const char* name, int64_t min, int64_t max, int32_t otherwise);

  // A number above 0 and at most `max`.
  double Positive(const char* name, double max);
  double PositiveOr(const char* name, double max, double otherwise);

  bool BoolOr(const char* name, bool otherwise);

  // An integer that another field decides.
  void Exactly(const char* name, int64_t number, const char* reason);

  bool Has(const char* name) const;

  void Fail(const char* name, const nlohmann::json& value, const std::string& allowed);

  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json* Find(const char* name);

  const nlohmann::json& object_;
  std::string where_;
  absl::Status status_;
};

}  // namespace catserve

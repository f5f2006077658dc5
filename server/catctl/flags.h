// What catctl's commands share: flags, the connection, how errors are told.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/flags/declare.h"
#include "absl/types/optional.h"

ABSL_DECLARE_FLAG(std::string, server);
ABSL_DECLARE_FLAG(std::string, token_file);
ABSL_DECLARE_FLAG(std::string, tls_ca);
ABSL_DECLARE_FLAG(std::string, tls_cert);
ABSL_DECLARE_FLAG(std::string, tls_key);
ABSL_DECLARE_FLAG(double, timeout_seconds);
ABSL_DECLARE_FLAG(bool, json);
ABSL_DECLARE_FLAG(std::string, chunk_size);
ABSL_DECLARE_FLAG(bool, automatic);
ABSL_DECLARE_FLAG(absl::optional<int64_t>, kv_bytes_max);
ABSL_DECLARE_FLAG(absl::optional<double>, quality_loss_max);
ABSL_DECLARE_FLAG(absl::optional<std::string>, quality_task);
ABSL_DECLARE_FLAG(std::string, prompt_file);
ABSL_DECLARE_FLAG(std::string, token_ids);
ABSL_DECLARE_FLAG(absl::optional<int32_t>, max_tokens);
ABSL_DECLARE_FLAG(absl::optional<double>, temperature);
ABSL_DECLARE_FLAG(absl::optional<int32_t>, top_k);
ABSL_DECLARE_FLAG(absl::optional<double>, top_p);
ABSL_DECLARE_FLAG(absl::optional<double>, min_p);
ABSL_DECLARE_FLAG(absl::optional<uint64_t>, seed);
ABSL_DECLARE_FLAG(absl::optional<int32_t>, n);
ABSL_DECLARE_FLAG(std::vector<std::string>, stop);
ABSL_DECLARE_FLAG(bool, ignore_eos);
ABSL_DECLARE_FLAG(absl::optional<int32_t>, priority);
ABSL_DECLARE_FLAG(std::string, cache_salt);
ABSL_DECLARE_FLAG(bool, bypass_prefix_cache);
ABSL_DECLARE_FLAG(bool, stats);
ABSL_DECLARE_FLAG(std::string, file);
ABSL_DECLARE_FLAG(double, requests_per_second);
ABSL_DECLARE_FLAG(int32_t, prompt_tokens);
ABSL_DECLARE_FLAG(int32_t, generated_tokens);
ABSL_DECLARE_FLAG(double, utilisation);
ABSL_DECLARE_FLAG(double, measure_seconds);
ABSL_DECLARE_FLAG(std::string, owner);
ABSL_DECLARE_FLAG(absl::optional<int64_t>, requests_max);
ABSL_DECLARE_FLAG(absl::optional<int64_t>, tokens_per_minute_max);

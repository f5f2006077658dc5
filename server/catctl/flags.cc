#include "server/catctl/flags.h"

#include "absl/flags/flag.h"

ABSL_FLAG(std::string, server, "127.0.0.1:8500", "the server's address");
ABSL_FLAG(std::string, token_file, "",
          "send the token in this file (else the one in CATSERVE_TOKEN); token: write it there");
ABSL_FLAG(std::string, tls_ca, "", "TLS: the authorities that sign servers, a PEM file");
ABSL_FLAG(std::string, tls_cert, "", "mutual TLS: this client's certificate, a PEM file");
ABSL_FLAG(std::string, tls_key, "", "mutual TLS: the certificate's key, a PEM file");
ABSL_FLAG(double, timeout_seconds, 0, "give a request up after this long; 0: never (wait: 60)");
ABSL_FLAG(bool, json, false, "generate, model, load: print messages as JSON, one a line");
ABSL_FLAG(std::string, chunk_size, "", "generate: the chunk size; score: a list, as 4,8,16");
ABSL_FLAG(bool, automatic, false, "generate: let the server choose the chunk size; also --auto");
ABSL_FLAG(absl::optional<int64_t>, kv_bytes_max, absl::nullopt,
          "generate: most bytes of KV memory; the server chooses a chunk size that keeps it");
ABSL_FLAG(
    absl::optional<double>, quality_loss_max, absl::nullopt,
    "generate: most that may be lost against the best chunk size, 0 to 1, as 0.05 (see model)");
ABSL_FLAG(absl::optional<std::string>, quality_task, absl::nullopt,
          "generate: the task whose measured values count for it (see model)");
ABSL_FLAG(std::string, prompt_file, "", "generate: read the prompt from this file; - is stdin");
ABSL_FLAG(std::string, token_ids, "", "generate: the prompt as ids, as 5,17,3, instead of text");
ABSL_FLAG(absl::optional<int32_t>, max_tokens, absl::nullopt, "generate: most tokens to generate");
ABSL_FLAG(absl::optional<double>, temperature, absl::nullopt, "generate: 0 is greedy");
ABSL_FLAG(absl::optional<int32_t>, top_k, absl::nullopt, "generate: the k likeliest; 0 is off");
ABSL_FLAG(absl::optional<double>, top_p, absl::nullopt, "generate: the likeliest of mass p");
ABSL_FLAG(absl::optional<double>, min_p, absl::nullopt, "generate: relative to the likeliest");
ABSL_FLAG(absl::optional<uint64_t>, seed, absl::nullopt, "generate: the same seed, the same text");
ABSL_FLAG(absl::optional<int32_t>, n, absl::nullopt, "generate: how many texts");
ABSL_FLAG(std::vector<std::string>, stop, {}, "generate: stop strings, separated by commas");
ABSL_FLAG(bool, ignore_eos, false, "generate: go on after the end-of-text token");
ABSL_FLAG(absl::optional<int32_t>, priority, absl::nullopt,
          "generate: lower runs first; p stands in the queue as if it had come p seconds later");
ABSL_FLAG(std::string, cache_salt, "", "generate: share cached prompts only with this salt");
ABSL_FLAG(bool, bypass_prefix_cache, false, "generate: neither read nor fill the prefix cache");
ABSL_FLAG(bool, stats, false, "generate: tell times and memory on stderr");
ABSL_FLAG(std::string, file, "", "score: the text; - is stdin");
ABSL_FLAG(double, requests_per_second, 0, "plan: the load that replicas must carry together");
ABSL_FLAG(int32_t, prompt_tokens, 256, "plan: tokens of a prompt");
ABSL_FLAG(int32_t, generated_tokens, 128, "plan: tokens of an answer");
ABSL_FLAG(double, utilisation, 0.7, "plan: how busy a replica may be; the rest is for bursts");
ABSL_FLAG(double, measure_seconds, 5, "plan: how long to measure each chunk size");
ABSL_FLAG(std::string, owner, "", "token: whose requests it stands for");
ABSL_FLAG(absl::optional<int64_t>, requests_max, absl::nullopt,
          "token: most requests of the owner at once; without it no limit");
ABSL_FLAG(absl::optional<int64_t>, tokens_per_minute_max, absl::nullopt,
          "token: most tokens of the owner in a minute, read and generated; without it no limit");

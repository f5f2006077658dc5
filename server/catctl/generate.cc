// catctl generate: streams text as it comes.
#include <unistd.h>

#include <cstdio>
#include <map>

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/protobuf/util/json_util.h"
#include "server/catctl/commands.h"
#include "server/catctl/flags.h"

namespace catserve {
namespace {

absl::Status ReadPrompt(const std::vector<std::string>& words, v1::Prompt& prompt) {
  const std::string file = absl::GetFlag(FLAGS_prompt_file);
  const std::string ids = absl::GetFlag(FLAGS_token_ids);
  if ((words.empty() ? 0 : 1) + (file.empty() ? 0 : 1) + (ids.empty() ? 0 : 1) != 1) {
    return absl::InvalidArgumentError(
        "generate needs one prompt: catctl generate \"Once upon\", or --prompt_file=FILE (- is "
        "stdin), or --token_ids=5,17,3");
  }
  if (!ids.empty()) {
    const absl::StatusOr<std::vector<int32_t>> numbers = ReadNumbers("token_ids", ids);
    if (!numbers.ok()) return numbers.status();
    prompt.mutable_token_ids()->mutable_ids()->Add(numbers->begin(), numbers->end());
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> text = absl::StrJoin(words, " ");
  if (!file.empty()) text = ReadInput(file);
  if (!text.ok()) return text.status();
  prompt.set_text(*std::move(text));
  return absl::OkStatus();
}

absl::Status ReadBudget(v1::GenerateRequest& request) {
  const std::string chunk_size = absl::GetFlag(FLAGS_chunk_size);
  v1::AutoBudget bounds;
  if (const auto value = absl::GetFlag(FLAGS_kv_bytes_max)) bounds.set_kv_bytes_max(*value);
  if (const auto value = absl::GetFlag(FLAGS_quality_loss_max)) bounds.set_quality_loss_max(*value);
  if (const auto value = absl::GetFlag(FLAGS_quality_task)) bounds.set_quality_task(*value);
  const bool bounded =
      bounds.has_kv_bytes_max() || bounds.has_quality_loss_max() || bounds.has_quality_task();
  int32_t number = 0;
  if (absl::GetFlag(FLAGS_automatic) || bounded) {
    if (!chunk_size.empty()) {
      return absl::InvalidArgumentError(
          "use either --chunk_size, which is exact, or --auto (--kv_bytes_max, --quality_loss_max "
          "and --quality_task imply it)");
    }
    *request.mutable_budget()->mutable_auto_() = bounds;
  } else if (!chunk_size.empty()) {
    if (!absl::SimpleAtoi(chunk_size, &number)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--chunk_size=", chunk_size, " is no number; see catctl model"));
    }
    request.mutable_budget()->set_chunk_size(number);
  }
  return absl::OkStatus();
}

void ReadSampling(v1::GenerateRequest& request) {
  v1::Sampling& sampling = *request.mutable_sampling();
  if (const auto value = absl::GetFlag(FLAGS_temperature)) sampling.set_temperature(*value);
  if (const auto value = absl::GetFlag(FLAGS_top_k)) sampling.set_top_k(*value);
  if (const auto value = absl::GetFlag(FLAGS_top_p)) sampling.set_top_p(*value);
  if (const auto value = absl::GetFlag(FLAGS_min_p)) sampling.set_min_p(*value);
  if (const auto value = absl::GetFlag(FLAGS_seed)) sampling.set_seed(*value);
  if (const auto value = absl::GetFlag(FLAGS_n)) sampling.set_n(*value);
  v1::Stopping& stopping = *request.mutable_stopping();
  if (const auto value = absl::GetFlag(FLAGS_max_tokens)) stopping.set_max_tokens(*value);
  for (const std::string& stop : absl::GetFlag(FLAGS_stop)) stopping.add_stop(stop);
  if (absl::GetFlag(FLAGS_ignore_eos)) stopping.set_ignore_eos(true);
}

void ReadSharing(v1::GenerateRequest& request) {
  if (const auto value = absl::GetFlag(FLAGS_priority)) request.set_priority(*value);
  const std::string salt = absl::GetFlag(FLAGS_cache_salt);
  if (!salt.empty()) request.set_cache_salt(salt);
  if (absl::GetFlag(FLAGS_bypass_prefix_cache)) request.set_bypass_prefix_cache(true);
}

// Prints what comes: one choice as it streams, several at the end, one after the other.
class Printer {
 public:
  explicit Printer(bool several) : several_(several) {}

  void Print(const v1::GenerateResponse& response) {
    if (absl::GetFlag(FLAGS_json)) {
      std::string json;
      (void)google::protobuf::util::MessageToJsonString(response, &json);
      std::printf("%s\n", json.c_str());
    } else if (response.has_tokens()) {
      PrintText(response.tokens());
    }
    if (response.has_started()) started_ = response.started();
    if (response.has_budget_changed()) TellChange(response.budget_changed());
    if (response.has_tokens() && first_token_ == absl::InfinitePast()) first_token_ = absl::Now();
    if (response.has_choice_finished()) {
      aborted_ |= response.choice_finished().reason() == v1::FINISH_REASON_ABORTED;
      cut_ |= response.choice_finished().reason() == v1::FINISH_REASON_TIME_LIMIT;
      full_ |= response.choice_finished().reason() == v1::FINISH_REASON_KV_LIMIT;
    }
    if (response.has_finished()) finished_ = response.finished();
    std::fflush(stdout);
  }

  void End() {
    if (absl::GetFlag(FLAGS_json)) return;
    for (const auto& [index, text] : texts_) {
      std::printf("--- choice %d\n%s\n", index, text.c_str());
    }
    if (!several_) std::printf("\n");
    std::fflush(stdout);
  }

  // Says so if the server ended a text before its time. Returns the exit code.
  int TellCuts() const {
    if (aborted_) {
      std::fputs("catctl: the server ended this text early: it was aborted or is shutting down\n",
                 stderr);
      return kExitError;
    }
    if (cut_) std::fputs("catctl: the text was cut by its time limit\n", stderr);
    if (full_) std::fputs("catctl: the text was cut by --kv_bytes_max\n", stderr);
    return kExitOk;
  }

  void PrintStats(absl::Time start) const {
    const v1::Usage& usage = finished_.usage();
    const double decode = usage.decode_seconds();
    std::fprintf(stderr, "chunk size %d, %d prompt tokens (%d cached), %d generated, seed %s\n",
                 usage.chunk_size(), usage.prompt_tokens(), usage.cached_tokens(),
                 usage.generated_tokens(), absl::StrCat(started_.seed()).c_str());
    if (first_token_ != absl::InfinitePast()) {
      std::fprintf(stderr, "first token after %.1f ms, then %.1f tokens/s\n",
                   absl::ToDoubleMilliseconds(first_token_ - start),
                   decode > 0 ? (usage.generated_tokens() - 1) / decode : 0.0);
    }
    std::fprintf(stderr, "peak KV memory %s bytes; a dense model as wide: %s bytes%s\n",
                 absl::StrCat(usage.kv_bytes_peak()).c_str(),
                 absl::StrCat(usage.kv_bytes_dense_same_width()).c_str(), Twin(usage).c_str());
  }

  bool started() const { return !started_.request_id().empty(); }

 private:
  static void TellChange(const v1::BudgetChanged& change) {
    std::fflush(stdout);
    if (isatty(STDOUT_FILENO)) std::fputc('\n', stderr);  // the text so far stands in this line
    std::fprintf(stderr, "catctl: the server changed the chunk size from %d to %d at token %d\n",
                 change.from_chunk_size(), change.to_chunk_size(), change.at_token());
  }

  void PrintText(const v1::Tokens& tokens) {
    const std::string text = absl::GetFlag(FLAGS_token_ids).empty() || !tokens.text().empty()
                                 ? tokens.text()
                                 : absl::StrCat(absl::StrJoin(tokens.token_ids(), " "), " ");
    if (several_) {
      texts_[tokens.choice_index()] += text;
    } else {
      std::fwrite(text.data(), 1, text.size(), stdout);
    }
  }

  static std::string Twin(const v1::Usage& usage) {
    if (usage.kv_bytes_dense_twin() == 0) return "";
    return absl::StrCat(", the dense twin: ", usage.kv_bytes_dense_twin(), " bytes");
  }

  const bool several_;
  std::map<int, std::string> texts_;
  v1::Started started_;
  v1::Finished finished_;
  bool aborted_ = false;
  bool cut_ = false;
  bool full_ = false;
  absl::Time first_token_ = absl::InfinitePast();
};

}  // namespace

int GenerateCommand(const Client& client, const std::vector<std::string>& words) {
  v1::GenerateRequest request;
  if (auto status = ReadPrompt(words, *request.mutable_prompt()); !status.ok()) {
    return FailUsage(status.message());
  }
  if (auto status = ReadBudget(request); !status.ok()) return FailUsage(status.message());
  ReadSampling(request);
  ReadSharing(request);
  Call call(client);
  const absl::Time start = absl::Now();
  const auto stream = client.generation->Generate(&call.context, request);
  Printer printer(request.sampling().n() > 1);
  v1::GenerateResponse response;
  while (stream->Read(&response)) printer.Print(response);
  const grpc::Status status = stream->Finish();
  if (!status.ok()) return Fail(status, client, /*answered=*/printer.started());
  printer.End();
  if (absl::GetFlag(FLAGS_stats)) printer.PrintStats(start);
  return printer.TellCuts();
}

}  // namespace catserve

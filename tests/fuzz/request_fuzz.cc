// The way of requests: bytes to messages, messages to requests, admission, and a scheduler whose
// executor checks every plan, to the end. Any bytes are refused with a Status or served; every
// accepted request ends exactly once and leaves every page free.
//
// The input is a list of acts: a byte that picks one, a byte with its number, for a message two
// bytes with its length (little-endian) and the message.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/admission.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/tokenizer.h"
#include "server/quality.h"
#include "server/request_reader.h"
#include "tests/engine/schedule/driver.h"

namespace catserve {
namespace {

constexpr int kRequestsMax = 12;
constexpr int kStepsMax = 200;  // between acts, of one input

void Require(bool condition) {
  if (!condition) std::abort();
}

const ModelGeometry kModel{.kind = ModelKind::kCat,
                           .chunk_sizes = {4, 8, 16},
                           .block_size = 128,
                           .vocab_size = 260,
                           .bytes_per_entry = 100};
const EngineOptions kOptions{.slots = 4,
                             .kv_pages = 12,
                             .step_rows_max = 96,
                             .step_tokens_max = 64,
                             .compressor_token_rows = 0.1};

ModelCard MakeCard() {
  ModelCard card;
  card.tasks = {{"text", "bits", false, {{4, 1.8}, {8, 1.64}, {16, 1.6}}, std::nullopt},
                {"recall", "accuracy", true, {{4, 1.0}, {8, 0.97}}, std::nullopt}};
  return card;
}

ServedModel MakeModel() {
  std::string json = "{";
  for (int byte = 0; byte < 256; ++byte) {
    const std::string symbol = ByteSymbol(static_cast<uint8_t>(byte));
    const bool escape = symbol == "\"" || symbol == "\\";
    json += std::string(escape ? "\"\\" : "\"") + symbol + "\":" + std::to_string(byte) + ",";
  }
  auto tokenizer = Tokenizer::FromVocabAndMerges(
      json + R"("ab":256,"abc":257,"ll":258,"<|endoftext|>":259})", "a b\nab c\nl l\n");
  ServedModel model;
  model.description.geometry = kModel;
  model.tokenizer = *std::move(tokenizer);
  model.token_bytes_max = LongestToken(*model.tokenizer);
  model.card = MakeCard();
  model.default_budget = *ReadDefaultBudget("auto", model);
  return model;
}

// One input, played.
class Play {
 public:
  Play(const ServedModel& model, std::string_view input)
      : model_(model),
        rest_(input),
        driver_(kModel,
                {.slots = kOptions.slots,
                 .kv_pages = kOptions.kv_pages,
                 .step_rows_max = kOptions.step_rows_max,
                 .step_tokens_max = kOptions.step_tokens_max,
                 .compressor_token_rows = kOptions.compressor_token_rows,
                 .quality = QualityColumns(model.card, kModel)},
                /*depth=*/input.empty() ? 0 : input.front() >> 7 & 1) {}

  void Run() {
    while (rest_.size() >= 2) {
      const uint8_t act = Byte(), number = Byte();
      Act(act % 8, number);
    }
    for (RequestKey key = 1; key <= accepted_; ++key) driver_.scheduler.SetPaused(key, false);
    driver_.Run();  // aborts if a page is held or somebody waits for ever
    for (RequestKey key = 1; key <= accepted_; ++key) {
      const Story& story = driver_.stories[key];
      Require(story.finished.has_value());
      if (story.started) Require(Allows(key, story.started->chunk_size));
      for (const BudgetChangedEvent& change : story.changes) {
        Require(Allows(key, change.to_chunk_size));
      }
    }
  }

 private:
  uint8_t Byte() {
    const auto byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return byte;
  }

  std::string Message() {
    if (rest_.size() < 2) return "";
    const size_t low = Byte(), length = low | size_t{Byte()} << 8;
    const std::string message(rest_.substr(0, length));
    rest_.remove_prefix(message.size());
    return message;
  }

  void Act(int act, uint8_t number) {
    Scheduler& scheduler = driver_.scheduler;
    const RequestKey key = 1 + number % kRequestsMax;
    switch (act) {
      case 0: Submit(Read<v1::GenerateRequest>(ReadGenerate), number); break;
      case 1: Submit(Read<v1::ScoreRequest>(ReadScore), number); break;
      case 2: scheduler.Cancel(key, driver_.now); break;
      case 3: scheduler.EndChoice(key, number / kRequestsMax, driver_.now); break;
      case 4: scheduler.SetPaused(key, true); break;
      case 5: scheduler.SetPaused(key, false); break;
      default:
        for (int i = number % 32; i > 0 && steps_ < kStepsMax; --i, ++steps_) driver_.Step();
        return;
    }
    driver_.Read(scheduler.TakeReports());
  }

  template <typename Proto, typename Reader>
  absl::StatusOr<ReadRequest> Read(const Reader& reader) {
    Proto message;
    if (!message.ParseFromString(Message())) return absl::InvalidArgumentError("no message");
    return reader(message, model_);
  }

  void Submit(absl::StatusOr<ReadRequest> read, uint8_t number) {
    if (!read.ok() || accepted_ == kRequestsMax) return;
    Require(CheckRequestId(read->id).ok());
    Request& request = read->request;
    if (!ValidateRequest(kModel, kOptions, request).ok()) return;
    const auto known = [](TokenId id) { return id >= 0 && id < kModel.vocab_size; };
    Require(std::all_of(request.prompt.begin(), request.prompt.end(), known));
    if (number & 1) request.deadline = driver_.now + absl::Seconds(number);
    if (number & 2) request.owner = "b";
    request.sampling.seed = number;  // a request without one draws it anew each time
    budgets_.push_back(request.budget);
    Require(driver_.Add(request) == ++accepted_);
  }

  bool Allows(RequestKey key, int32_t chunk_size) const {
    const std::vector<int32_t> allowed = AllowedChunkSizes(kModel, budgets_[key - 1]);
    return std::find(allowed.begin(), allowed.end(), chunk_size) != allowed.end();
  }

  const ServedModel& model_;
  std::string_view rest_;
  Driver driver_;
  RequestKey accepted_ = 0;
  std::vector<Budget> budgets_;  // of those accepted
  int steps_ = 0;
};

}  // namespace
}  // namespace catserve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const catserve::ServedModel& model = *new catserve::ServedModel(catserve::MakeModel());
  catserve::Play(model, {reinterpret_cast<const char*>(data), size}).Run();
  return 0;
}

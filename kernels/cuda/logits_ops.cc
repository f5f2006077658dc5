#include "kernels/cuda/logits_ops.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/check.h"
#include "kernels/shape_checks.h"

namespace catserve::cuda {
namespace {

// Rows of logits of one launch and what is known of them.
struct LogitsRows {
  TensorView logits;
  int32_t vocab_size = 0;
};

int32_t TopMax(std::span<const int32_t> top_n) {
  return top_n.empty() ? 0 : std::max(0, *std::max_element(top_n.begin(), top_n.end()));
}

// How many ids of each row are listed, none where nothing is wanted.
std::vector<int32_t> Clamped(std::span<const int32_t> top_n, int32_t vocab_size) {
  std::vector<int32_t> counts;
  for (const int32_t n : top_n) counts.push_back(std::clamp(n, 0, vocab_size));
  return counts;
}

int64_t ScoreBytes(int32_t top_max) { return SizeOf(DType::kF32) * (1 + 2 * int64_t{top_max}); }

// Fetches what becomes the ids of `out`, whose other results come after them.
void FetchIds(DeviceContext& context, std::span<TokenDraw> out, const int32_t* device) {
  const auto count = static_cast<int64_t>(out.size());
  context.downloads->MakeRoom(count * SizeOf(DType::kI32), 1);
  const int32_t* ids = context.downloads->Fetch(device, count);
  context.downloads->Then([out, ids] {
    for (size_t i = 0; i < out.size(); ++i) out[i] = {.id = ids[i]};
  });
}

// Scores `targets`, on the device, and fetches what becomes out[i] wherever wanted[i].
void Score(DeviceContext& context, std::span<TokenDraw> out, const LogitsRows& rows,
           const int32_t* targets, std::span<const int32_t> top_n, std::vector<bool> wanted) {
  const auto count = static_cast<int64_t>(out.size());
  const std::vector<int32_t> counts = Clamped(top_n, rows.vocab_size);
  const int32_t top_max = TopMax(counts);
  Packet lists;
  lists.Add(counts);
  const ScoreTokensArgs args{.logits = rows.logits.row<const float>(0),
                             .stride = rows.logits.row_stride,
                             .vocab_size = rows.vocab_size,
                             .top_max = top_max,
                             .targets = targets,
                             .top_n = ListAt<int32_t>(context.work->Send(lists), 0),
                             .logprobs = context.scratch->Take<float>(count),
                             .top_ids = context.scratch->Take<int32_t>(count * top_max),
                             .top_logprobs = context.scratch->Take<float>(count * top_max)};
  context.work->Do<LaunchScoreTokens>(args, static_cast<int>(count));
  context.downloads->MakeRoom(count * ScoreBytes(top_max), 3);
  const float* logprobs = context.downloads->Fetch(args.logprobs, count);
  const int32_t* ids = context.downloads->Fetch(args.top_ids, count * top_max);
  const float* top = context.downloads->Fetch(args.top_logprobs, count * top_max);
  context.downloads->Then([=, wanted = std::move(wanted)] {
    for (size_t i = 0; i < out.size(); ++i) {
      if (!wanted[i]) continue;
      out[i].logprob = logprobs[i];
      for (int64_t at = i * top_max; at < static_cast<int64_t>(i) * top_max + counts[i]; ++at) {
        out[i].top.emplace_back(ids[at], top[at]);
      }
    }
  });
}

// The specs' lists, and the rows that point to them.
void SendRows(DeviceContext& context, std::span<const SampleSpec> specs, SampleArgs& args) {
  Packet lists;
  std::vector<int64_t> bias_ids_at, biases_at, forbidden_at;
  for (const SampleSpec& spec : specs) {
    std::vector<int32_t> ids;
    std::vector<float> biases;
    for (const auto& [id, bias] : spec.logit_bias) {
      ids.push_back(id);
      biases.push_back(bias);
    }
    bias_ids_at.push_back(lists.Add(ids));
    biases_at.push_back(lists.Add(biases));
    forbidden_at.push_back(lists.Add(spec.forbidden));
  }
  const int64_t room = context.work->RoomFor(std::ssize(specs));
  context.work->MakeRoom(lists.size() + room * static_cast<int64_t>(sizeof(SampleRow)), 3);
  const std::byte* base = context.work->lists() + context.work->SendApart(lists);
  std::vector<SampleRow> rows;
  for (size_t i = 0; i < specs.size(); ++i) {
    SampleRow& row = rows.emplace_back(RowOf(specs[i]));
    row.bias_ids = ListAt<int32_t>(base, bias_ids_at[i]);
    row.biases = ListAt<float>(base, biases_at[i]);
    row.forbidden = ListAt<int32_t>(base, forbidden_at[i]);
  }
  const int32_t count[] = {static_cast<int32_t>(rows.size())};
  Packet packed;
  const int64_t rows_at = packed.Add(rows, room);
  const int64_t count_at = packed.Add(std::span<const int32_t>(count));
  const std::byte* sent = context.work->Send(packed);
  args.rows = ListAt<SampleRow>(sent, rows_at);
  args.count = ListAt<int32_t>(sent, count_at);
}

void SampleBlock(DeviceContext& context, std::span<TokenDraw> out, const LogitsRows& rows,
                 std::span<const SampleSpec> specs) {
  const auto count = static_cast<int64_t>(specs.size());
  const int64_t room = context.work->RoomFor(count);
  context.scratch->Begin();
  SampleArgs args{.logits = rows.logits.row<const float>(0),
                  .stride = rows.logits.row_stride,
                  .vocab_size = rows.vocab_size,
                  .z = context.scratch->Take<float>(room * rows.vocab_size),
                  .counts = context.scratch->Take<uint32_t>(room * rows.vocab_size),
                  .ids = context.scratch->Take<int32_t>(room)};
  SendRows(context, specs, args);
  context.work->Do<LaunchSample>(args, static_cast<int>(room));
  FetchIds(context, out, args.ids);
  std::vector<bool> wanted;
  std::vector<int32_t> top_n;
  for (const SampleSpec& spec : specs) {
    wanted.push_back(spec.logprobs >= 0);
    top_n.push_back(spec.logprobs);
  }
  if (std::find(wanted.begin(), wanted.end(), true) == wanted.end()) return;
  Score(context, out, rows, args.ids, top_n, std::move(wanted));
}

}  // namespace

SampleRow RowOf(const SampleSpec& spec) {
  const float scale = 1.0f / spec.temperature * 1.44269504f;
  const double least =
      static_cast<double>(kSampleWeightMax) * static_cast<double>(std::min(spec.min_p, 1.0f));
  const bool penalizes = spec.repetition_penalty != 1.0f || spec.presence_penalty != 0.0f ||
                         spec.frequency_penalty != 0.0f;
  return {.greedy = spec.temperature == 0.0f ? 1 : 0,
          .scale = std::min(scale, std::numeric_limits<float>::max()),
          .repetition_penalty = spec.repetition_penalty,
          .presence_penalty = spec.presence_penalty,
          .frequency_penalty = spec.frequency_penalty,
          .penalizes = penalizes ? 1 : 0,
          .top_k = spec.top_k,
          .top_p = spec.top_p,
          .least = least >= 1.0 ? static_cast<uint64_t>(least) : 0,
          .word = RandomWord(spec.seed, spec.choice, spec.position),
          .bias_count = static_cast<int32_t>(spec.logit_bias.size()),
          .forbidden_count = static_cast<int32_t>(spec.forbidden.size()),
          .prompt = spec.prompt.data(),
          .prompt_count = static_cast<int32_t>(spec.prompt.size()),
          .generated = spec.generated.data(),
          .generated_count = static_cast<int32_t>(spec.generated.size()),
          .drawn_at = spec.drawn_at};
}

void SampleRows(DeviceContext& context, std::span<TokenDraw> out, const TensorView& logits,
                int32_t vocab_size, std::span<const SampleSpec> specs) {
  CheckLogits(logits, vocab_size, specs.size());
  CATSERVE_CHECK(out.size() == specs.size()) << out.size() << " draws of " << specs.size();
  int32_t logprobs_max = 0;
  for (const SampleSpec& spec : specs) logprobs_max = std::max(logprobs_max, spec.logprobs);
  const int64_t score_bytes = ScoreBytes(std::min(logprobs_max, vocab_size));
  const int64_t row_bytes = int64_t{8} * vocab_size + SizeOf(DType::kI32) + score_bytes;
  const int64_t rows_max =
      std::min(context.scratch->Fits(row_bytes, 6), context.downloads->Fits(score_bytes, 3));
  if (context.work->RoomFor(logits.rows()) > rows_max) context.work->EndPart();
  for (int64_t first = 0; first < logits.rows(); first += rows_max) {
    const int64_t rows = std::min(rows_max, logits.rows() - first);
    SampleBlock(context, out.subspan(first, rows), {logits.Rows(first, rows), vocab_size},
                specs.subspan(first, rows));
  }
}

void ScoreRows(DeviceContext& context, std::span<TokenDraw> out, const TensorView& logits,
               int32_t vocab_size, std::span<const int32_t> targets,
               std::span<const int32_t> top_n) {
  CheckLogits(logits, vocab_size, targets.size());
  CATSERVE_CHECK(out.size() == targets.size() && top_n.size() == targets.size())
      << out.size() << " results and " << top_n.size() << " counts of " << targets.size();
  if (targets.empty()) return;
  const int64_t row_bytes = ScoreBytes(std::min(TopMax(top_n), vocab_size));
  const int64_t rows_max =
      std::min(context.scratch->Fits(row_bytes, 3), context.downloads->Fits(row_bytes, 3));
  for (int64_t first = 0; first < logits.rows(); first += rows_max) {
    const int64_t rows = std::min(rows_max, logits.rows() - first);
    context.scratch->Begin();
    const int32_t* of_rows = targets.data() + first;
    FetchIds(context, out.subspan(first, rows), of_rows);
    Score(context, out.subspan(first, rows), {logits.Rows(first, rows), vocab_size}, of_rows,
          top_n.subspan(first, rows), std::vector<bool>(rows, true));
  }
}

}  // namespace catserve::cuda

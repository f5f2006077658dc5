#include "engine/text/pre_tokenizer.h"

#include <string>
#include <utility>

#include "engine/text/message.h"
#include "engine/text/metaspace.h"

namespace catserve {
namespace {

std::string WithMetaspaces(std::string_view piece, bool prepend) {
  std::string text = SpacesToMetaspaces(piece);
  if (prepend && !text.starts_with(kMetaspace)) text.insert(0, kMetaspace);
  return text;
}

// A piece starts at each kMetaspace: "▁a▁▁b" is "▁a", "▁", "▁b".
absl::Status SplitAtMetaspaces(std::string_view text, RegexSplitter::Sink sink) {
  while (!text.empty()) {
    const size_t next = text.find(kMetaspace, 1);
    const std::string_view piece = text.substr(0, next);
    if (absl::Status status = sink(piece); !status.ok()) return status;
    text.remove_prefix(piece.size());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Build(std::vector<PreTokenizerStep> steps) {
  if (steps.size() > kPreTokenizerStepsMax) {
    return absl::InvalidArgumentError(
        Message("pre_tokenizer: ", steps.size(), " steps; at most ", kPreTokenizerStepsMax));
  }
  PreTokenizer built;
  built.splitters_.resize(steps.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].kind != PreTokenizerStep::Kind::kSplit) continue;
    absl::StatusOr<RegexSplitter> splitter = RegexSplitter::Compile(steps[i].pattern);
    if (!splitter.ok()) {
      return absl::Status(splitter.status().code(),
                          Message("pre_tokenizer: ", splitter.status().message()));
    }
    built.splitters_[i] = *std::move(splitter);
  }
  built.steps_ = std::move(steps);
  return built;
}

absl::Status PreTokenizer::Split(std::string_view text, bool at_text_start,
                                 RegexSplitter::Sink sink) const {
  return text.empty() ? absl::OkStatus() : Run(0, text, at_text_start, sink);
}

absl::Status PreTokenizer::Run(size_t step, std::string_view piece, bool at_text_start,
                               RegexSplitter::Sink sink) const {
  if (step == steps_.size()) return sink(piece);
  const auto next = [&](std::string_view part) {
    const bool first = at_text_start && part.data() == piece.data();
    return Run(step + 1, part, first, sink);
  };
  const PreTokenizerStep& rule = steps_[step];
  switch (rule.kind) {
    case PreTokenizerStep::Kind::kSplit:
      return splitters_[step]->Split(piece, rule.matches_only, next);
    case PreTokenizerStep::Kind::kPrefixSpace:
      if (piece.starts_with(' ')) return next(piece);
      return Run(step + 1, std::string(" ").append(piece), at_text_start, sink);
    case PreTokenizerStep::Kind::kMetaspace: {
      using Prepend = PreTokenizerStep::Prepend;
      const bool prepend =
          rule.prepend == Prepend::kAlways || (rule.prepend == Prepend::kFirst && at_text_start);
      const std::string text = WithMetaspaces(piece, prepend);
      // The last step (tokenizer_json.cc accepts it alone), so nobody asks which part is first.
      const auto last = [&](std::string_view part) { return Run(step + 1, part, false, sink); };
      return rule.split ? SplitAtMetaspaces(text, last) : last(text);
    }
  }
  return absl::InternalError("pre_tokenizer: unknown step");
}

}  // namespace catserve

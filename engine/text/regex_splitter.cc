#include "engine/text/regex_splitter.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "engine/text/message.h"
#include "engine/text/split_pattern.h"

namespace catserve {
namespace {

// Backtracking allowed from one start: a run of n white spaces takes some 2n steps with the usual
// patterns; nested repetition takes exponentially many and must end.
uint32_t MatchLimit(size_t text_bytes) { return static_cast<uint32_t>(100'000 + 8 * text_bytes); }
constexpr uint32_t kMatchHeapKib = 64 << 10;
constexpr uint32_t kGroupDepthMax = 32;

struct FreeData {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct FreeMatchContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct FreeCompileContext {
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
};

std::string ErrorText(int code) {
  std::array<PCRE2_UCHAR, 128> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

void RegexSplitter::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

absl::StatusOr<RegexSplitter> RegexSplitter::Compile(std::string_view pattern) {
  const absl::StatusOr<std::string> translated = TranslateSplitPattern(pattern);
  if (!translated.ok()) return translated.status();

  const std::unique_ptr<pcre2_compile_context, FreeCompileContext> context(
      pcre2_compile_context_create(nullptr));
  if (context == nullptr) return absl::ResourceExhaustedError("no memory for a pattern");
  pcre2_set_parens_nest_limit(context.get(), kGroupDepthMax);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                          context.get()));
  if (code == nullptr) {
    return absl::InvalidArgumentError(Message("pattern: ", ErrorText(error)));
  }
  uint32_t may_match_empty = 0;
  pcre2_pattern_info(code.get(), PCRE2_INFO_MATCHEMPTY, &may_match_empty);
  if (may_match_empty != 0) return absl::InvalidArgumentError("pattern: it can match nothing");
  // Where the library has no just-in-time compiler, its interpreter gives the same matches.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return RegexSplitter(std::move(code));
}

absl::Status RegexSplitter::Split(std::string_view text, bool matches_only, Sink sink) const {
  const std::unique_ptr<pcre2_match_data, FreeData> data(
      pcre2_match_data_create_from_pattern(code_.get(), nullptr));
  const std::unique_ptr<pcre2_match_context, FreeMatchContext> context(
      pcre2_match_context_create(nullptr));
  if (data == nullptr || context == nullptr) {
    return absl::ResourceExhaustedError("no memory to match a pattern");
  }
  pcre2_set_match_limit(context.get(), MatchLimit(text.size()));
  pcre2_set_heap_limit(context.get(), kMatchHeapKib);

  const auto match = [&](size_t from, uint32_t options) {
    return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                       PCRE2_NO_UTF_CHECK | options, data.get(), context.get());
  };
  const auto hand_out = [&](size_t begin, size_t end) {
    return begin == end ? absl::OkStatus() : sink(text.substr(begin, end - begin));
  };
  for (size_t at = 0; at < text.size();) {
    int found = match(at, 0);
    // The machine code runs on a small stack; the interpreter has the heap.
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = match(at, PCRE2_NO_JIT);
    if (found == PCRE2_ERROR_NOMATCH)
      return matches_only ? absl::OkStatus() : hand_out(at, text.size());
    if (found < 0) {
      return absl::InvalidArgumentError(
          Message("text is too costly for the tokenizer's pattern: ", ErrorText(found)));
    }
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(data.get());
    if (span[1] <= at) return absl::InternalError("a pattern matched nothing");
    absl::Status status = matches_only ? absl::OkStatus() : hand_out(at, span[0]);
    if (status.ok()) status = hand_out(span[0], span[1]);
    if (!status.ok()) return status;
    at = span[1];
  }
  return absl::OkStatus();
}

}  // namespace catserve

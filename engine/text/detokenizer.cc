#include "engine/text/detokenizer.h"

#include <utility>

#include "engine/text/utf8.h"

namespace catserve {

IncrementalDetokenizer::IncrementalDetokenizer(const Tokenizer* tokenizer)
    : tokenizer_(tokenizer) {}

std::string IncrementalDetokenizer::Push(int32_t id) {
  if (!tokenizer_->Valid(id) || tokenizer_->IsSpecial(id)) return {};
  open_ += tokenizer_->TokenBytes(id);
  const size_t closed = ClosedUtf8Prefix(open_);
  std::string text = ReplaceInvalidUtf8(std::string_view(open_).substr(0, closed));
  open_.erase(0, closed);
  return text;
}

std::string IncrementalDetokenizer::Flush() { return ReplaceInvalidUtf8(std::exchange(open_, {})); }

}  // namespace catserve

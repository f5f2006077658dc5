#include "engine/text/text_stream.h"

#include <utility>

namespace catserve {

TextStream::TextStream(const Tokenizer* tokenizer, Options options)
    : detokenizer_(tokenizer), matcher_(std::move(options.stops), options.include_stop) {}

TextStream::Output TextStream::Push(int32_t id, bool may_stop) {
  const std::string piece = detokenizer_.Push(id);
  if (!may_stop) return {.text = matcher_.PushLiteral(piece)};
  StopMatcher::Output output = matcher_.Push(piece);
  return {.text = std::move(output.text), .matched = output.matched};
}

TextStream::Output TextStream::Flush() {
  StopMatcher::Output output = matcher_.Push(detokenizer_.Flush());
  if (output.matched < 0) output.text += matcher_.Flush();
  return {.text = std::move(output.text), .matched = output.matched};
}

}  // namespace catserve

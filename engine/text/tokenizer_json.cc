// tokenizer.json: the model, the steps before it and the decoder after it. Every field that could
// change a token is either understood or refused.
#include <algorithm>
#include <limits>
#include <utility>

#include "engine/text/added_tokens.h"
#include "engine/text/json_reader.h"
#include "engine/text/message.h"
#include "engine/text/metaspace.h"
#include "engine/text/split_pattern.h"
#include "engine/text/token_table.h"
#include "engine/text/tokenizer_files.h"

namespace catserve {
namespace {

using Step = PreTokenizerStep;

void ReadVocab(const JsonField& field, TokenizerSpec& spec) {
  if (!field.value().is_object()) return field.Invalid("must be an object of token to id");
  spec.vocab.reserve(field.value().size());
  for (const auto& [token, id] : field.value().items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= uint64_t{kVocabSizeMax}) {
      return field.Invalid(
          Message("the id of ", Quoted(token), " must be a whole number below ", kVocabSizeMax));
    }
    spec.vocab.emplace_back(token, id.get<int32_t>());
  }
}

// Each merge is ["a", "b"] or, in older files, "a b".
void ReadMerges(const JsonField& field, TokenizerSpec& spec) {
  if (!field.value().is_array()) return field.Invalid("must be a list");
  spec.merges.reserve(field.value().size());
  for (const nlohmann::json& merge : field.value()) {
    const auto refuse = [&](std::string_view why) {
      field.Invalid(Message("entry ", spec.merges.size(), " must be ", why));
    };
    if (merge.is_string()) {
      const auto& both = merge.get_ref<const std::string&>();
      const size_t space = both.find(' ');
      if (space == std::string::npos || both.find(' ', space + 1) != std::string::npos) {
        return refuse("two tokens with one space between");
      }
      spec.merges.emplace_back(both.substr(0, space), both.substr(space + 1));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      spec.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
    } else {
      return refuse("a pair of strings");
    }
  }
}

void ReadModel(const JsonField& model, TokenizerSpec& spec) {
  model.AllowOnly({"type", "dropout", "unk_token", "continuing_subword_prefix",
                   "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges", "vocab",
                   "merges"});
  const std::string type = model["type"].StringOr("BPE");
  if (type != "BPE") return model["type"].Unsupported(Message(Quoted(type), " (only BPE)"));
  const nlohmann::json& dropout = model["dropout"].value();
  if (!dropout.is_null() && dropout != 0.0) model["dropout"].Unsupported("must be null or 0");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model[affix].StringOr("").empty()) model[affix].Unsupported("must be null or empty");
  }
  // Every character has tokens (Tokenizer checks it), so no text is ever unknown: unk_token and
  // fuse_unk have no effect.
  model["unk_token"].StringOr("");
  model["fuse_unk"].BoolOr(false);
  spec.ignore_merges = model["ignore_merges"].BoolOr(false);
  spec.alphabet = model["byte_fallback"].BoolOr(false) ? TokenAlphabet::kByteFallback
                                                       : TokenAlphabet::kByteLevel;
  ReadVocab(model["vocab"], spec);
  ReadMerges(model["merges"], spec);
}

void ReadAddedTokens(const JsonField& field, TokenizerSpec& spec) {
  for (const JsonField& item : field.Items()) {
    item.AllowOnly({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    for (const char* option : {"single_word", "lstrip", "rstrip"}) {
      if (item[option].BoolOr(false)) item[option].Unsupported("must be false");
    }
    AddedToken token{.id = item["id"].Int32(), .content = item["content"].String()};
    token.special = item["special"].BoolOr(false);
    token.normalized = item["normalized"].BoolOr(!token.special);
    if (token.content.empty() || token.content.size() > kAddedTokenBytesMax) {
      item["content"].Invalid(Message("must have 1 to ", kAddedTokenBytesMax, " bytes"));
    }
    spec.added.push_back(std::move(token));
  }
}

// The items of a Sequence under `list`, else the field itself; nothing for null.
std::vector<JsonField> Flatten(const JsonField& field, std::string_view list) {
  if (field.IsNull()) return {};
  if (field["type"].String() != "Sequence") return {field};
  field.AllowOnly({"type", list});
  return field[list].Items();
}

// {"String": content}, the only kind of pattern in Replace that we take.
bool IsReplace(const JsonField& field, std::string_view from, std::string_view to) {
  field.AllowOnly({"type", "pattern", "content"});
  field["pattern"].AllowOnly({"String", "Regex"});
  return field["pattern"]["String"].StringOr("") == from && field["content"].String() == to;
}

void ReadNormalizer(const JsonField& normalizer, TokenizerSpec& spec) {
  for (const JsonField& field : Flatten(normalizer, "normalizers")) {
    const std::string type = field["type"].String();
    if (spec.alphabet == TokenAlphabet::kByteLevel) {
      return field.Unsupported(Message(Quoted(type), " (byte-level: none)"));
    }
    if (type == "Prepend" && !spec.prepend_metaspace) {
      field.AllowOnly({"type", "prepend"});
      spec.prepend_metaspace = true;
      if (field["prepend"].String() != kMetaspace) field["prepend"].Unsupported("must be U+2581");
    } else if (type == "Replace" && !spec.replace_spaces) {
      spec.replace_spaces = true;
      if (!IsReplace(field, " ", kMetaspace)) field.Unsupported("must be space to U+2581");
    } else {
      return field.Unsupported(Message(Quoted(type), " here"));
    }
  }
}

void ReadSplit(const JsonField& field, TokenizerSpec& spec) {
  field.AllowOnly({"type", "pattern", "behavior", "invert"});
  if (!field["pattern"]["Regex"].value().is_string()) {
    return field["pattern"].Unsupported("must be a Regex");
  }
  Step step{.kind = Step::Kind::kSplit, .pattern = field["pattern"]["Regex"].String()};
  const std::string behavior = field["behavior"].String();
  const bool invert = field["invert"].BoolOr(false);
  step.matches_only = behavior == "Removed" && invert;
  if (behavior != "Isolated" && !step.matches_only) {
    return field["behavior"].Unsupported("must be Isolated, or Removed with invert");
  }
  spec.steps.push_back(std::move(step));
}

void ReadMetaspace(const JsonField& field, TokenizerSpec& spec) {
  field.AllowOnly(
      {"type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"});
  if (field["replacement"].String() != kMetaspace) {
    field["replacement"].Unsupported("must be U+2581");
  }
  Step step{.kind = Step::Kind::kMetaspace, .split = field["split"].BoolOr(true)};
  // Older files have add_prefix_space only.
  const bool prefix = field["add_prefix_space"].BoolOr(true);
  const std::string scheme = field["prepend_scheme"].StringOr(prefix ? "always" : "never");
  if (scheme == "always" || scheme == "first") {
    step.prepend = scheme == "always" ? Step::Prepend::kAlways : Step::Prepend::kFirst;
  } else if (scheme != "never") {
    field["prepend_scheme"].Invalid("must be always, first or never");
  }
  spec.steps.push_back(std::move(step));
}

void ReadByteLevelStep(const JsonField& field, TokenizerSpec& spec) {
  field.AllowOnly({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  if (field["add_prefix_space"].BoolOr(true)) {
    spec.steps.push_back({.kind = Step::Kind::kPrefixSpace});
  }
  if (field["use_regex"].BoolOr(true)) {
    spec.steps.push_back({.kind = Step::Kind::kSplit, .pattern = std::string(kGpt2SplitPattern)});
  }
}

void ReadPreTokenizer(const JsonField& pre_tokenizer, TokenizerSpec& spec) {
  const std::vector<JsonField> fields = Flatten(pre_tokenizer, "pretokenizers");
  if (spec.alphabet == TokenAlphabet::kByteFallback) {
    if (fields.empty()) return;
    if (fields.size() > 1 || fields[0]["type"].String() != "Metaspace") {
      return pre_tokenizer.Unsupported("with byte_fallback it must be null or Metaspace");
    }
    return ReadMetaspace(fields[0], spec);
  }
  if (fields.empty() || fields.back()["type"].String() != "ByteLevel") {
    return pre_tokenizer.Unsupported("without byte_fallback the last step must be ByteLevel");
  }
  for (size_t i = 0; i + 1 < fields.size(); ++i) {
    const std::string type = fields[i]["type"].String();
    if (type == "Split") {
      ReadSplit(fields[i], spec);
    } else if (type == "Digits") {
      fields[i].AllowOnly({"type", "individual_digits"});
      const bool each = fields[i]["individual_digits"].BoolOr(false);
      spec.steps.push_back({.kind = Step::Kind::kSplit, .pattern = each ? "\\p{N}" : "\\p{N}+"});
    } else {
      return fields[i].Unsupported(Message(Quoted(type), " (only Split and Digits)"));
    }
  }
  ReadByteLevelStep(fields.back(), spec);
}

void ReadDecoder(const JsonField& decoder, TokenizerSpec& spec) {
  const std::vector<JsonField> fields = Flatten(decoder, "decoders");
  if (spec.alphabet == TokenAlphabet::kByteLevel) {
    if (fields.empty() || (fields.size() == 1 && fields[0]["type"].String() == "ByteLevel")) return;
    return decoder.Unsupported("without byte_fallback it must be ByteLevel");
  }
  constexpr std::string_view kRemedy = "must be Replace, ByteFallback, Fuse and perhaps Strip";
  if (fields.size() < 3 || fields.size() > 4) return decoder.Unsupported(kRemedy);
  const bool named = fields[0]["type"].String() == "Replace" &&
                     fields[1]["type"].String() == "ByteFallback" &&
                     fields[2]["type"].String() == "Fuse" &&
                     (fields.size() == 3 || fields[3]["type"].String() == "Strip");
  if (!named) return decoder.Unsupported(kRemedy);
  if (!IsReplace(fields[0], kMetaspace, " ")) fields[0].Unsupported("must be U+2581 to space");
  if (fields.size() == 3) return;
  const JsonField& strip = fields[3];
  strip.AllowOnly({"type", "content", "start", "stop"});
  spec.strip_leading_space = true;
  if (strip["content"].String() != " " || strip["start"].Int32() != 1 ||
      strip["stop"].Int32() != 0) {
    strip.Unsupported("must drop one space at the start and none at the end");
  }
}

// A template that puts one special token before the text makes it the bos token.
void ReadTemplate(const JsonField& field, TokenizerSpec& spec) {
  field.AllowOnly({"type", "single", "pair", "special_tokens"});
  const std::vector<JsonField> parts = field["single"].Items();
  const bool bos = parts.size() == 2 && !parts[0]["SpecialToken"].IsNull();
  if (parts.empty() || parts.size() != (bos ? 2 : 1) || parts.back()["Sequence"].IsNull()) {
    return field["single"].Unsupported("must be the text, with at most one token before it");
  }
  if (!bos) return;
  spec.bos_token = parts[0]["SpecialToken"]["id"].String();
  spec.prepend_bos = true;
}

void ReadPostProcessor(const JsonField& post_processor, TokenizerSpec& spec) {
  for (const JsonField& field : Flatten(post_processor, "processors")) {
    const std::string type = field["type"].String();
    if (type == "TemplateProcessing") {
      ReadTemplate(field, spec);
    } else if (type != "ByteLevel") {  // that one only moves offsets
      field.Unsupported(Message(Quoted(type), " (only TemplateProcessing, ByteLevel)"));
    }
  }
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view json) {
  const absl::StatusOr<nlohmann::json> document = ParseBoundedJson(json);
  if (!document.ok()) return document.status();
  absl::Status status;
  const JsonField root(*document, "", &status);
  root.AllowOnly({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                  "post_processor", "decoder", "model"});
  TokenizerSpec spec;
  ReadModel(root["model"], spec);
  ReadAddedTokens(root["added_tokens"], spec);
  ReadNormalizer(root["normalizer"], spec);
  ReadPreTokenizer(root["pre_tokenizer"], spec);
  ReadDecoder(root["decoder"], spec);
  ReadPostProcessor(root["post_processor"], spec);
  if (!status.ok()) return status;
  return spec;
}

absl::StatusOr<TokenizerSpec> ParseVocabAndMerges(std::string_view vocab_json,
                                                  std::string_view merges) {
  const absl::StatusOr<nlohmann::json> document = ParseBoundedJson(vocab_json);
  if (!document.ok()) {
    return absl::Status(document.status().code(),
                        Message("vocab.json: ", document.status().message()));
  }
  absl::Status status;
  TokenizerSpec spec;
  ReadVocab(JsonField(*document, "vocab.json", &status), spec);
  if (!status.ok()) return status;
  size_t line_number = 0;
  while (!merges.empty()) {
    ++line_number;
    std::string_view line = merges.substr(0, merges.find('\n'));
    merges.remove_prefix(std::min(merges.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with("#version")) continue;
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      return absl::InvalidArgumentError(
          Message("merges.txt: line ", line_number, " must be two tokens with one space between"));
    }
    spec.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  spec.steps.push_back({.kind = Step::Kind::kSplit, .pattern = std::string(kGpt2SplitPattern)});
  for (const auto& [token, id] : spec.vocab) {
    if (token != "<|endoftext|>") continue;
    spec.added.push_back({.id = id, .content = token, .special = true});
    spec.eos_token = token;
  }
  return spec;
}

}  // namespace catserve

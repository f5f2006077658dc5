#include "engine/text/tokenizer.h"

#include <array>
#include <initializer_list>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "engine/text/added_tokens.h"
#include "engine/text/bpe.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/message.h"
#include "engine/text/metaspace.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/token_table.h"
#include "engine/text/tokenizer_files.h"
#include "engine/text/utf8.h"

namespace catserve {
namespace {

absl::Status Prefixed(std::string_view file, const absl::Status& status) {
  return absl::Status(status.code(), Message(file, ": ", status.message()));
}

// Bytes 0xC0, 0xC1 and above 0xF4 occur in no valid text; a vocabulary may lack them.
bool OccursInUtf8(int byte) { return byte < 0xC0 || (byte > 0xC1 && byte < 0xF5); }

// Without a tokenizer_config.json, the names that models usually give these tokens.
constexpr std::array<std::string_view, 3> kUsualBos = {"<s>", "<|begin_of_text|>", "<bos>"};
constexpr std::array<std::string_view, 4> kUsualEos = {"<|endoftext|>", "</s>", "<|end_of_text|>",
                                                       "<eos>"};

}  // namespace

// What the files say, in the form that encoding needs.
struct Tokenizer::Parts {
  TokenTable table;
  BpeMerges merges;
  PreTokenizer pre_tokenizer;
  AddedTokenMatcher added;             // looked for in the text as it came
  AddedTokenMatcher added_normalized;  // looked for after normalising
  std::array<int32_t, 256> byte_ids;   // the token of each byte; -1: none
  TokenAlphabet alphabet;
  bool ignore_merges;
  bool prepend_metaspace;
  bool replace_spaces;
  bool strip_leading_space;

  std::string Normalize(std::string_view text) const;
  absl::Status FindByteIds();
  void AddAddedTokens(const std::vector<AddedToken>& tokens);
  absl::StatusOr<TokenizerInfo> Info(const TokenizerSpec& spec) const;
  std::optional<int32_t> WholePiece(std::string_view piece) const;
  void AppendSymbols(std::string_view piece, std::vector<int32_t>& ids) const;
};

std::string Tokenizer::Parts::Normalize(std::string_view text) const {
  std::string normal(text);
  if (prepend_metaspace && !normal.empty()) normal.insert(0, kMetaspace);
  if (replace_spaces) normal = SpacesToMetaspaces(normal);
  return normal;
}

absl::Status Tokenizer::Parts::FindByteIds() {
  const bool byte_level = alphabet == TokenAlphabet::kByteLevel;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string spelling =
        byte_level ? ByteSymbol(static_cast<uint8_t>(byte)) : absl::StrFormat("<0x%02X>", byte);
    byte_ids[byte] = table.Find(spelling).value_or(-1);
    if (byte_ids[byte] < 0 && OccursInUtf8(byte)) {
      return absl::InvalidArgumentError(
          Message("model.vocab: no token ", Quoted(spelling), " for a byte that text may have"));
    }
  }
  return absl::OkStatus();
}

void Tokenizer::Parts::AddAddedTokens(const std::vector<AddedToken>& tokens) {
  for (const AddedToken& token : tokens) {
    if (token.normalized) {
      added_normalized.Add(Normalize(token.content), token.id);
    } else {
      added.Add(token.content, token.id);
    }
  }
}

absl::StatusOr<TokenizerInfo> Tokenizer::Parts::Info(const TokenizerSpec& spec) const {
  TokenizerInfo info{.vocab_size = table.size(), .prepend_bos = spec.prepend_bos};
  const auto usual = [&](auto names) {
    for (const std::string_view name : names) {
      const std::optional<int32_t> id = table.FindAny(name);
      if (id && table.IsSpecial(*id)) return *id;
    }
    return -1;
  };
  info.bos_id =
      spec.bos_token.empty() ? usual(kUsualBos) : table.FindAny(spec.bos_token).value_or(-1);
  info.eos_id =
      spec.eos_token.empty() ? usual(kUsualEos) : table.FindAny(spec.eos_token).value_or(-1);
  for (const auto& [name, id] :
       {std::pair(&spec.bos_token, info.bos_id), std::pair(&spec.eos_token, info.eos_id)}) {
    if (name->empty() || id >= 0) continue;
    return absl::InvalidArgumentError(
        Message("the bos or eos token ", Quoted(*name), " is not in the vocabulary"));
  }
  if (info.prepend_bos && info.bos_id < 0) {
    return absl::InvalidArgumentError("a bos token is asked for, but none is named");
  }
  return info;
}

std::optional<int32_t> Tokenizer::Parts::WholePiece(std::string_view piece) const {
  if (alphabet == TokenAlphabet::kByteFallback) return table.Find(piece);
  std::string spelling;
  for (const char byte : piece) spelling += ByteSymbol(static_cast<uint8_t>(byte));
  return table.Find(spelling);
}

void Tokenizer::Parts::AppendSymbols(std::string_view piece, std::vector<int32_t>& ids) const {
  const auto append_bytes = [&](std::string_view bytes) {
    for (const char byte : bytes) ids.push_back(byte_ids[static_cast<uint8_t>(byte)]);
  };
  if (alphabet == TokenAlphabet::kByteLevel) return append_bytes(piece);
  while (!piece.empty()) {
    const std::string_view character = piece.substr(0, ReadUtf8(piece).length);
    const std::optional<int32_t> id = table.Find(character);
    if (id) {
      ids.push_back(*id);
    } else {
      append_bytes(character);
    }
    piece.remove_prefix(character.size());
  }
}

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts, const TokenizerInfo& info)
    : parts_(std::move(parts)), info_(info) {}

Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Build(TokenizerSpec spec) {
  absl::StatusOr<TokenTable> table = TokenTable::Build(spec);
  if (!table.ok()) return table.status();
  absl::StatusOr<BpeMerges> merges = BpeMerges::Build(*table, spec.merges);
  if (!merges.ok()) return merges.status();
  absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::Build(spec.steps);
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();

  std::unique_ptr<Parts> parts(new Parts{.table = *std::move(table),
                                         .merges = *std::move(merges),
                                         .pre_tokenizer = *std::move(pre_tokenizer),
                                         .alphabet = spec.alphabet,
                                         .ignore_merges = spec.ignore_merges,
                                         .prepend_metaspace = spec.prepend_metaspace,
                                         .replace_spaces = spec.replace_spaces,
                                         .strip_leading_space = spec.strip_leading_space});
  if (absl::Status status = parts->FindByteIds(); !status.ok()) return status;
  parts->AddAddedTokens(spec.added);
  const absl::StatusOr<TokenizerInfo> info = parts->Info(spec);
  if (!info.ok()) return info.status();
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(parts), *info));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromTokenizerJson(std::string_view json) {
  absl::StatusOr<TokenizerSpec> spec = ParseTokenizerJson(json);
  if (!spec.ok()) return Prefixed("tokenizer.json", spec.status());
  auto tokenizer = Build(*std::move(spec));
  if (!tokenizer.ok()) return Prefixed("tokenizer.json", tokenizer.status());
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromVocabAndMerges(
    std::string_view vocab_json, std::string_view merges) {
  absl::StatusOr<TokenizerSpec> spec = ParseVocabAndMerges(vocab_json, merges);
  if (!spec.ok()) return spec.status();
  auto tokenizer = Build(*std::move(spec));
  if (!tokenizer.ok()) return Prefixed("vocab.json and merges.txt", tokenizer.status());
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::filesystem::path& model_dir) {
  const auto name = [&](std::string_view file) { return (model_dir / file).string(); };
  absl::StatusOr<TokenizerSpec> spec = absl::NotFoundError("");
  const absl::StatusOr<std::string> json = ReadTokenizerFile(name("tokenizer.json"));
  if (json.ok()) {
    spec = ParseTokenizerJson(*json);
  } else if (!absl::IsNotFound(json.status())) {
    return json.status();
  } else {
    const absl::StatusOr<std::string> vocab = ReadTokenizerFile(name("vocab.json"));
    const absl::StatusOr<std::string> merges = ReadTokenizerFile(name("merges.txt"));
    for (const absl::Status& status : {vocab.status(), merges.status()}) {
      if (absl::IsNotFound(status)) {
        return absl::NotFoundError(
            Message(model_dir.string(),
                    ": no tokenizer: neither tokenizer.json nor vocab.json with "
                    "merges.txt is there"));
      }
      if (!status.ok()) return status;
    }
    spec = ParseVocabAndMerges(*vocab, *merges);
  }
  const std::string source = json.ok() ? name("tokenizer.json") : model_dir.string();
  if (!spec.ok()) return Prefixed(source, spec.status());
  const absl::StatusOr<std::string> config = ReadTokenizerFile(name("tokenizer_config.json"));
  if (config.ok()) {
    const absl::Status status = ApplyTokenizerConfig(*config, *spec);
    if (!status.ok()) return Prefixed(name("tokenizer_config.json"), status);
  } else if (!absl::IsNotFound(config.status())) {
    return config.status();
  }
  auto tokenizer = Build(*std::move(spec));
  if (!tokenizer.ok()) return Prefixed(source, tokenizer.status());
  return tokenizer;
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(std::string_view text,
                                                       bool parse_special) const {
  if (text.size() > kTextBytesMax) {
    return absl::InvalidArgumentError(
        Message("text of ", text.size(), " bytes; at most ", kTextBytesMax));
  }
  if (const std::optional<size_t> bad = FirstInvalidUtf8(text)) {
    return absl::InvalidArgumentError(Message("text is not valid UTF-8 at byte ", *bad));
  }
  std::vector<int32_t> ids;
  absl::Status status;
  const auto on_token = [&](int32_t id) { ids.push_back(id); };
  const auto on_text = [&](std::string_view part) {
    const bool at_start = part.data() == text.data();
    const std::string normal = parts_->Normalize(part);
    const auto on_normal = [&](std::string_view piece) {
      status = EncodeNormalized(piece, at_start && piece.data() == normal.data(), ids);
      return status.ok();
    };
    if (!parse_special) return on_normal(normal);
    return parts_->added_normalized.Split(normal, on_normal, on_token);
  };
  if (parse_special) {
    parts_->added.Split(text, on_text, on_token);
  } else {
    on_text(text);
  }
  if (!status.ok()) return status;
  return ids;
}

absl::Status Tokenizer::EncodeNormalized(std::string_view text, bool at_text_start,
                                         std::vector<int32_t>& ids) const {
  BpeMerges::Scratch scratch;
  std::vector<int32_t> symbols;
  return parts_->pre_tokenizer.Split(text, at_text_start, [&](std::string_view piece) {
    if (parts_->ignore_merges) {
      if (const std::optional<int32_t> id = parts_->WholePiece(piece)) {
        ids.push_back(*id);
        return absl::OkStatus();
      }
    }
    symbols.clear();
    parts_->AppendSymbols(piece, symbols);
    parts_->merges.Apply(symbols, scratch);
    ids.insert(ids.end(), symbols.begin(), symbols.end());
    return absl::OkStatus();
  });
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  return Valid(id) ? parts_->table.Bytes(id) : std::string_view();
}

bool Tokenizer::IsSpecial(int32_t id) const { return Valid(id) && parts_->table.IsSpecial(id); }

std::string Tokenizer::Decode(std::span<const int32_t> ids) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!IsSpecial(id)) bytes += TokenBytes(id);
  }
  if (parts_->strip_leading_space && bytes.starts_with(' ')) bytes.erase(0, 1);
  return bytes;
}

}  // namespace catserve

#include "tests/server/text_model.h"

#include <filesystem>
#include <sstream>

#include "nlohmann/json.hpp"
#include "tests/engine/model/golden.h"

namespace catserve::testing {

void WriteTextModel(const TempDirectory& directory) {
  constexpr int kVocabulary = 512;
  constexpr int kBytes = 256;  // GPT-2's first ids, one for each byte; merge i makes id 256 + i
  for (const char* file : {"config.json", "model.safetensors"}) {
    std::filesystem::copy_file(GoldenDirectory("adaptive-tiny") + "/" + file, directory.File(file));
  }
  const auto all = nlohmann::json::parse(ReadAll("tests/data/tokenizers/gpt2/vocab.json"));
  nlohmann::json vocabulary = nlohmann::json::object();
  for (const auto& [text, id] : all.items()) {
    if (id.get<int>() < kVocabulary) vocabulary[text] = id;
  }
  directory.Write("vocab.json", vocabulary.dump());
  std::istringstream lines(ReadAll("tests/data/tokenizers/gpt2/merges.txt"));
  std::string merges, line;
  for (int taken = -1; taken < kVocabulary - kBytes && std::getline(lines, line); ++taken) {
    merges += line + "\n";  // the first line tells the version
  }
  directory.Write("merges.txt", merges);
}

}  // namespace catserve::testing

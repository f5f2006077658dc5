// The configuration file: what it takes, how it says what is wrong, and that parser, schema and
// documentation agree.
#include "server/config/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"

namespace catserve {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string ReadFile(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string Error(const std::string& text) {
  const absl::StatusOr<ServerConfig> config = ParseServerConfig(text, "c.yaml");
  return config.ok() ? "accepted" : std::string(config.status().message());
}

// "connections.count_max" and a value, as a file.
std::string FileWith(absl::string_view key, absl::string_view value) {
  const std::pair<absl::string_view, absl::string_view> names = absl::StrSplit(key, '.');
  if (names.second.empty()) return absl::StrCat(key, ": ", value, "\n");
  return absl::StrCat(names.first, ":\n  ", names.second, ": ", value, "\n");
}

TEST(ConfigFile, AnEmptyFileAndEmptyGroupsAreTheDefaults) {
  for (const char* text : {"", "# nothing\n", "tls:\nconnections:\n  # count_max: 3\n", "{}"}) {
    const auto config = ParseServerConfig(text, "c.yaml");
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->connections.count_max, 1024);
    EXPECT_EQ(config->readers.stall, absl::Seconds(60));
    EXPECT_FALSE(config->plaintext_allowed);
  }
}

TEST(ConfigFile, PathsStartAtTheFilesFolder) {
  const auto config = ParseServerConfig(
      "tls: {certificate_file: a.crt, key_file: /k/b.key}\naccess: {tokens_file: t/x.yaml}\n",
      "etc/catserve/c.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->tls.certificate_file, "etc/catserve/a.crt");
  EXPECT_EQ(config->tls.key_file, "/k/b.key");
  EXPECT_EQ(config->tokens_file, "etc/catserve/t/x.yaml");
}

TEST(ConfigFile, TheDocumentedExampleLoads) {
  const std::string docs = ReadFile("docs/operations.md");
  const size_t section = docs.find("## Configuration");
  const size_t start = docs.find("```yaml\n", section) + 8;
  const size_t end = docs.find("```", start);
  ASSERT_LT(start, end);
  const auto config = ParseServerConfig(docs.substr(start, end - start), "etc/catserve.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->tls.certificate_file, "etc/tls.crt");
  EXPECT_EQ(config->connections.age_grace, absl::Seconds(600));
  EXPECT_EQ(config->health_address, "0.0.0.0:8501");
}

TEST(ConfigFile, EachMistakeNamesItsLineItsKeyAndTheRemedy) {
  const struct {
    const char* text;
    std::vector<std::string> says;
  } cases[] = {
      {"tls:\n  certificate: x\n", {"c.yaml:2: tls.certificate: ", "certificate_file, key_file"}},
      {"\n\nconections: {}\n", {"c.yaml:3: conections: ", "connections, health"}},
      {"connections:\n  count_max: 0\n", {"c.yaml:2: connections.count_max: 0", "1 to 100000"}},
      {"connections:\n  count_max: 1.5\n", {"c.yaml:2: ", "no whole number"}},
      {"connections:\n  count_max: \"7\"\n", {"c.yaml:2: ", "no whole number"}},
      {"connections:\n  count_max: [7]\n", {"c.yaml:2: ", "one value"}},
      {"connections:\n  count_max:\n", {"c.yaml:2: ", "one value"}},
      {"connections: 7\n", {"c.yaml:1: connections: keys are expected", "count_max"}},
      {"- tls\n", {"c.yaml:1: keys are expected", "tls, access"}},
      {"readers:\n  stall_seconds: .nan\n", {"c.yaml:2: readers.stall_seconds"}},
      {"readers:\n  stall_seconds: nan\n", {"c.yaml:2: readers.stall_seconds", "1 to 86400"}},
      {"plaintext_allowed: yes\n", {"c.yaml:1: plaintext_allowed: yes is not true or false"}},
      {"plaintext_allowed: 'true'\n", {"c.yaml:1: plaintext_allowed"}},
      {"health:\n  address: nowhere\n", {"c.yaml:2: health.address: nowhere", "host:port"}},
      {"health:\n  address: \"a\\tb:1\"\n", {"c.yaml:2: health.address: a\\tb:1", "control"}},
      {"access:\n  tokens_file: ''\n", {"c.yaml:2: access.tokens_file"}},
      {"reload_seconds: 1\n# x\nreload_seconds: 2\n", {"c.yaml:3: reload_seconds: given twice"}},
      {"tls:\n  certificate_file: a\n",
       {"c.yaml:2: tls.certificate_file: ", "without tls.key_file"}},
      {"tls:\n\n  key_file: a\n", {"c.yaml:3: tls.key_file: ", "without tls.certificate_file"}},
      {"tls: {client_ca_file: a}\n", {"c.yaml:1: tls.client_ca_file", "tls.certificate_file"}},
      {"readers:\n  lag_tokens_max: 0\n", {"readers.lag_tokens_max", "allowed: 1 to 1000000"}},
      {"reload_seconds: 0\n", {"reload_seconds: 0 is out of range; allowed: 0.1 to 3600"}},
      {"tls:\n\tkey_file: x\n", {"c.yaml:2: "}},
      {"tls: {key_file: x\n", {"c.yaml:"}},
      {"reload_seconds: 1\n---\nreload_seconds: 2\n", {"c.yaml:3: a second document"}},
      {"? [a]\n: 1\n", {"c.yaml:1: a key is a word"}},
      {"reload_seconds: !!int 3\n", {"c.yaml:1: tags are not allowed"}},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    const std::string error = Error(c.text);
    for (const std::string& text : c.says) EXPECT_THAT(error, HasSubstr(text));
    EXPECT_THAT(error, StartsWith("c.yaml:"));
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
}

TEST(ConfigFile, BombsAreRefusedBeforeTheyGoOff) {
  EXPECT_THAT(Error("a: &a [x, x]\nb: [*a, *a]\n"), HasSubstr("c.yaml:1: anchors and aliases"));
  EXPECT_THAT(Error("tls: *unknown\n"), StartsWith("c.yaml:1: "));
  for (const char* open : {"[", "{a: ", "- "}) {
    std::string deep;
    for (int i = 0; i < 10'000; ++i) deep += open;
    EXPECT_THAT(Error(deep), HasSubstr("nested too deeply")) << open;
  }
  EXPECT_THAT(Error(std::string(kServerConfigBytesMax + 1, ' ')), HasSubstr("at most 65536"));
  EXPECT_THAT(Error(std::string("tls:\n\0", 6)), HasSubstr("c.yaml:2: a zero byte"));
  const std::string long_key(5000, 'k');
  EXPECT_LT(Error(long_key + ": 1\n").size(), 300);
  EXPECT_THAT(Error("\"\\e[2J\": 1\n"), Not(HasSubstr("\x1b")));
}

TEST(ConfigFile, AMissingFileIsNamed) {
  const auto config = LoadServerConfig("no/such.yaml");
  EXPECT_TRUE(absl::IsInvalidArgument(config.status()));
  EXPECT_THAT(std::string(config.status().message()),
              AllOf(HasSubstr("--config=no/such.yaml"), HasSubstr("cannot be read")));
  EXPECT_FALSE(LoadServerConfig("tests").ok()) << "a folder";
}

// What the table of keys says of one, as text: type, default and range.
struct Told {
  std::string type;
  nlohmann::json standard;
};
Told Tell(const ConfigKey& key) {
  ServerConfig config;
  struct Visitor {
    Told operator()(const bool* field) const { return {"boolean", *field}; }
    Told operator()(const int32_t* field) const { return {"integer", *field}; }
    Told operator()(const absl::Duration* field) const {
      return {"number", absl::ToDoubleSeconds(*field)};
    }
    Told operator()(const std::string*) const { return {"string", nullptr}; }
  };
  return std::visit(Visitor(), key.field(config));
}

TEST(ConfigFile, TheBoundsOfEveryNumberAreExact) {
  for (const ConfigKey& key : ConfigKeys()) {
    const std::string type = Tell(key).type;
    if (type != "integer" && type != "number") continue;
    const double little = type == "integer" ? 1 : 0.01;
    for (const auto& [value, good] :
         {std::pair(key.low, true), std::pair(key.high, true), std::pair(key.low - little, false),
          std::pair(key.high + little, false)}) {
      const std::string exact =
          FileWith(key.name, type == "integer" ? absl::StrCat(static_cast<int64_t>(value))
                                               : nlohmann::json(value).dump());
      EXPECT_EQ(Error(exact) == "accepted", good) << exact << Error(exact);
    }
  }
}

// The leaves of a schema by path; refuses objects that take unknown keys.
void Leaves(const nlohmann::json& schema, const std::string& path,
            std::map<std::string, nlohmann::json>& leaves) {
  if (schema.at("type") != "object") {
    leaves[path] = schema;
    return;
  }
  EXPECT_EQ(schema.at("additionalProperties"), false) << path;
  for (const auto& [name, property] : schema.at("properties").items()) {
    Leaves(property, path.empty() ? name : absl::StrCat(path, ".", name), leaves);
  }
}

TEST(ConfigFile, TheSchemaSaysWhatTheParserTakes) {
  std::map<std::string, nlohmann::json> leaves;
  Leaves(nlohmann::json::parse(ReadFile("server/config.schema.json")), "", leaves);
  EXPECT_EQ(leaves.size(), ConfigKeys().size());
  for (const ConfigKey& key : ConfigKeys()) {
    SCOPED_TRACE(key.name);
    const nlohmann::json& leaf = leaves[std::string(key.name)];
    ASSERT_TRUE(leaf.is_object()) << "not in server/config.schema.json";
    const Told told = Tell(key);
    EXPECT_EQ(leaf.at("type"), told.type);
    if (!told.standard.is_null()) {
      EXPECT_EQ(leaf.at("default"), told.standard);
    }
    if (told.type != "integer" && told.type != "number") continue;
    EXPECT_EQ(leaf.at("minimum"), key.low);
    EXPECT_EQ(leaf.at("maximum"), key.high);
  }
}

TEST(ConfigFile, TheDocumentationSaysTheSame) {
  const std::string docs = ReadFile("docs/operations.md");
  for (const ConfigKey& key : ConfigKeys()) {
    const Told told = Tell(key);
    std::string row = absl::StrCat("| `", key.name, "` | ");
    if (told.type == "string") {
      absl::StrAppend(&row, "none | ");
    } else if (told.type == "boolean") {
      absl::StrAppend(&row, "false | true, false | ");
    } else {
      const double standard = told.standard.get<double>();
      absl::StrAppend(&row, standard, standard == 0 ? ": none | " : " | ", key.low, "–",
                      static_cast<int64_t>(key.high), " | ");
    }
    EXPECT_THAT(docs, HasSubstr(row));
  }
}

}  // namespace
}  // namespace catserve

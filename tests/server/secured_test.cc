// A secured catserved as an operator sets it up, with catctl as its caller.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/config/tokens_file.h"
#include "tests/server/certificates.h"
#include "tests/server/process.h"

namespace catserve::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kModel = "tests/data/golden/adaptive-tiny";

struct Ran {
  int code;
  std::string out, err;
};

Ran RunClient(std::vector<std::string> args) {
  args.insert(args.begin(), ClientBinary());
  Process process(args);
  const int code = process.Wait();
  return {code, process.out(), process.err()};
}

Ran MakeToken(const TempDirectory& directory, const std::string& owner) {
  return RunClient({"token", "--owner", owner, "--token_file", directory.File(owner + ".token")});
}

TEST(CatctlToken, WritesTheTokenForItsUserAloneAndPrintsTheEntry) {
  const TempDirectory directory;
  const Ran made = RunClient({"token", "--owner=a", "--token_file", directory.File("a.token"),
                              "--requests_max=3", "--tokens_per_minute_max=500"});
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_THAT(made.out,
              AllOf(HasSubstr("- owner: \"a\"\n  sha256: "), HasSubstr("requests_max: 3\n"),
                    HasSubstr("tokens_per_minute_max: 500\n")));
  const std::string token = ReadAll(directory.File("a.token"));
  EXPECT_THAT(token, HasSubstr("catserve_"));
  EXPECT_THAT(made.out, Not(HasSubstr(token.substr(0, token.size() - 1))));
  struct stat info {};
  ASSERT_EQ(stat(directory.File("a.token").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600);
  EXPECT_EQ(MakeToken(directory, "a").code, 2) << "an old token is not overwritten";
  EXPECT_EQ(ReadAll(directory.File("a.token")), token);
  EXPECT_EQ(MakeToken(directory, "no name").code, 2);
  EXPECT_EQ(RunClient({"token", "--owner=a"}).code, 2);
  EXPECT_EQ(RunClient({"token", "--owner=b", "--token_file=" + directory.File("b.token"),
                       "--requests_max=0"})
                .code,
            2);
  EXPECT_FALSE(std::filesystem::exists(directory.File("b.token")));
}

TEST(CatctlToken, EveryAllowedOwnerMakesAnEntryThatTheServerTakes) {
  const TempDirectory directory;
  for (const std::string owner : {"-", ":", "@x", "null", ".5", "a:", "7"}) {
    const Ran made = MakeToken(directory, owner);
    EXPECT_EQ(made.code, 0) << made.err;
    const auto entries = ParseTokens(made.out, "t.yaml");
    ASSERT_TRUE(entries.ok()) << entries.status();
    EXPECT_EQ(entries->at(0).owner, owner);
  }
}

TEST(CatctlToken, ATokenWhoseEntryIsLostIsRemoved) {
  const TempDirectory directory;
  const std::string file = directory.File("a.token");
  for (const char* lost : {" >/dev/full", " >&-"}) {
    const std::string command = ClientBinary() + " token --owner=a --token_file=" + file + lost;
    Process process({"/bin/sh", "-c", command});
    EXPECT_EQ(process.Wait(), 1) << lost;
    EXPECT_THAT(process.err(), HasSubstr(file + " is removed again")) << lost;
    EXPECT_FALSE(std::filesystem::exists(file)) << lost;
  }
}

TEST(CatctlToken, WhoSendsNoneIsToldWhereToPutIt) {
  const TempDirectory directory;
  directory.Write("tokens.yaml", MakeToken(directory, "a").out);
  directory.Write("c.yaml", "access: {tokens_file: tokens.yaml}\n");
  ServedProcess server(kModel, {"--config=" + directory.File("c.yaml")});
  ASSERT_TRUE(server.WaitUntilServing());
  const Ran refused = RunClient({"model", "--server=" + server.Address()});
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("--token_file or CATSERVE_TOKEN"));
}

TEST(CatctlToken, DoesNotTravelInPlaintextBeyondThisMachine) {
  const TempDirectory directory;
  ASSERT_EQ(MakeToken(directory, "a").code, 0);
  const Ran refused =  // an address for documentation: nobody is there
      RunClient({"model", "--server=192.0.2.1:1", "--token_file=" + directory.File("a.token"),
                 "--timeout_seconds=1"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("192.0.2.1:1 in plaintext: give --tls_ca"));
}

TEST(Secured, TlsAndTokensFromOneFileWithReloadOnHangup) {
  const TempDirectory directory;
  const Authority authority("ours"), next("next");
  const auto write = [&directory](const Authority& by) {
    const Issued issued = by.Issue("server");
    directory.Write("tls.crt", issued.certificate);
    directory.Write("tls.key", issued.key);
  };
  write(authority);
  directory.Write("ca.pem", authority.pem());
  directory.Write("next.pem", next.pem());
  const std::string alice = MakeToken(directory, "alice").out;
  directory.Write("tokens.yaml", alice);
  directory.Write("catserve.yaml",
                  "tls: {certificate_file: tls.crt, key_file: tls.key}\n"
                  "access: {tokens_file: tokens.yaml}\n"
                  "health: {address: '127.0.0.1:0'}\n"
                  "reload_seconds: 3600\n");
  ServedProcess server(kModel, {"--config=" + directory.File("catserve.yaml"), "--slots=2"});
  ASSERT_TRUE(server.WaitUntilServing()) << server.err();
  EXPECT_THAT(server.WaitForError("event=listening"),
              AllOf(HasSubstr("tls=on"), Not(HasSubstr("health_port=0"))));

  const std::string address = "--server=" + server.Address();
  const auto model = [&](const std::string& ca, const std::string& token) {
    return RunClient({"model", address, "--tls_ca=" + directory.File(ca),
                      "--token_file=" + directory.File(token)});
  };
  EXPECT_EQ(model("ca.pem", "alice.token").code, 0);
  EXPECT_EQ(RunClient({"wait", address, "--tls_ca=" + directory.File("ca.pem")}).code, 0)
      << "health needs no token";
  const Ran nobody = RunClient({"model", address, "--tls_ca=" + directory.File("ca.pem")});
  EXPECT_EQ(nobody.code, 1);
  EXPECT_THAT(nobody.err, HasSubstr("a known token is needed"));
  EXPECT_THAT(RunClient({"model", address}).err, HasSubstr("--tls_ca"));

  const std::string bob = MakeToken(directory, "bob").out;
  directory.Write("tokens.yaml", bob);
  write(next);
  server.Signal(SIGHUP);
  EXPECT_THAT(server.WaitForError("event=signal"),
              HasSubstr("needs_a_restart=\"the configuration file itself\""));
  ASSERT_THAT(server.WaitForError("event=reloaded what=certificates"), Not(HasSubstr("failed")));
  server.WaitForError("event=reloaded what=tokens");
  EXPECT_EQ(model("next.pem", "bob.token").code, 0);
  EXPECT_EQ(model("next.pem", "alice.token").code, 1) << "taken back";
  EXPECT_EQ(model("ca.pem", "bob.token").code, 1);
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
  const std::string token = ReadAll(directory.File("bob.token"));
  EXPECT_THAT(server.err(), Not(HasSubstr(token.substr(0, 20))));
}

// Ends by itself with code 2 and one line that says all these.
void ExpectRefused(const std::vector<std::string>& flags, const std::vector<std::string>& says) {
  std::vector<std::string> args = {ServerBinary(), "--model=" + kModel, "--metrics_address="};
  args.insert(args.end(), flags.begin(), flags.end());
  Process server(args);
  EXPECT_EQ(server.Wait(), 2);
  const std::string err = server.err();
  for (const std::string& text : says) EXPECT_THAT(err, HasSubstr(text));
  for (const absl::string_view line : absl::StrSplit(err, '\n', absl::SkipEmpty())) {
    EXPECT_TRUE(absl::StartsWith(line, "time=") || absl::StartsWith(line, "catserved: ")) << line;
  }
}

TEST(Secured, WhatIsWrongWithTheFilesEndsTheStart) {
  const TempDirectory directory;
  const std::string path = directory.File("c.yaml"), local = "--listen_address=127.0.0.1:0";
  const auto with = [&](const std::string& text) {
    directory.Write("c.yaml", text);
    return std::vector<std::string>{local, "--config=" + path};
  };
  ExpectRefused(with("\nconnections:\n  count_max: many\n"),
                {path + ":3: connections.count_max: many", "1 to 100000"});
  ExpectRefused({local, "--config=no/such.yaml"}, {"--config=no/such.yaml"});
  ExpectRefused(with("access: {tokens_file: t.yaml}\n"),
                {"access.tokens_file: ", "t.yaml cannot be read"});
  directory.Write("t.yaml", "- owner: a\n");
  ExpectRefused(with("access: {tokens_file: t.yaml}\n"), {"t.yaml:1: sha256: missing"});
  ExpectRefused(with("tls: {certificate_file: a, key_file: b}\n"),
                {"tls.certificate_file: ", "a cannot be read"});
  ExpectRefused({"--listen_address=0.0.0.0:0"},
                {"--listen_address=0.0.0.0:0", "plaintext_allowed: true"});
}

TEST(Secured, APipeInAFilesPlaceIsRefusedAndHoldsNothingUp) {
  const TempDirectory directory;
  const std::string config = directory.File("c.yaml"), tokens = directory.File("t.yaml");
  directory.Write("c.yaml", "access: {tokens_file: t.yaml}\nreload_seconds: 3600\n");
  directory.Write("t.yaml", "[]");
  ServedProcess server(kModel, {"--config=" + config});
  ASSERT_TRUE(server.WaitUntilServing()) << server.err();
  std::filesystem::remove(tokens);
  ASSERT_EQ(mkfifo(tokens.c_str(), 0600), 0);
  server.Signal(SIGHUP);
  EXPECT_THAT(server.WaitForError("event=reload_failed"),
              AllOf(HasSubstr("access.tokens_file"), HasSubstr("no regular file")));
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
  const std::string local = "--listen_address=127.0.0.1:0";
  ExpectRefused({local, "--config=" + config}, {"access.tokens_file", "no regular file"});
  ExpectRefused({local, "--config=" + tokens}, {"--config=" + tokens, "no regular file"});
}

TEST(Secured, HangupEndsAServerThatHasNothingToReload) {
  ServedProcess server(kModel);
  ASSERT_TRUE(server.WaitUntilServing());
  server.Signal(SIGHUP);
  EXPECT_EQ(server.Wait(), 128 + SIGHUP);
}

}  // namespace
}  // namespace catserve::testing

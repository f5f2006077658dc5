// TLS on real sockets: who is let in, and certificates replaced while streams run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "inference/kserve.grpc.pb.h"
#include "server/access.h"
#include "server/kserve/infer_request.h"
#include "tests/server/certificates.h"
#include "tests/server/scripted_server.h"

namespace catserve::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr int kRounds = 100;

// A folder of certificates, and a server's configuration that names them.
class Certified {
 public:
  void Write(const Issued& server, const std::string& client_ca = "") {
    directory_.Write("server.crt", server.certificate);
    directory_.Write("server.key", server.key);
    if (!client_ca.empty()) directory_.Write("clients.pem", client_ca);
  }
  ScriptedServer::Options Options(bool mutual = false) const {
    ScriptedServer::Options options;
    options.config.tls.certificate_file = directory_.File("server.crt");
    options.config.tls.key_file = directory_.File("server.key");
    if (mutual) options.config.tls.client_ca_file = directory_.File("clients.pem");
    return options;
  }

 private:
  TempDirectory directory_;
};

Stubs Trusting(const ScriptedServer& house, const Authority& authority, const Issued& own = {}) {
  return Stubs(house.address(),
               grpc::SslCredentialsOptions{authority.pem(), own.key, own.certificate});
}

TEST(Tls, ServesThoseWhoTrustItsAuthority) {
  const Authority authority("ours"), other("theirs");
  Certified files;
  files.Write(authority.Issue("server"));
  ScriptedServer house(files.Options());
  Stubs good = Trusting(house, authority), bad = Trusting(house, other);
  EXPECT_THAT(Generate(good, GreedyRequest({1, 2}, 4, 10)).ids(), SizeIs(10));
  EXPECT_EQ(CallMethod(bad, "GetModel").error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(CallMethod(house.stubs(), "GetModel").error_code(), grpc::StatusCode::UNAVAILABLE)
      << "plaintext";
}

TEST(MutualTls, ServesThoseWithACertificateAndNamesThemByIt) {
  const Authority authority("ours"), other("theirs");
  Certified files;
  files.Write(authority.Issue("server"), authority.pem());
  ScriptedServer house(files.Options(true));
  Stubs none = Trusting(house, authority);
  Stubs stranger = Trusting(house, authority, other.Issue("alice"));
  EXPECT_EQ(CallMethod(none, "GetModel").error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(CallMethod(stranger, "GetModel").error_code(), grpc::StatusCode::UNAVAILABLE);
  for (const char* name : {"", "two words", "forged\nline"}) {
    Stubs odd = Trusting(house, authority, authority.Issue(name));
    EXPECT_EQ(CallMethod(odd, "GetModel").error_code(), grpc::StatusCode::UNAUTHENTICATED) << name;
  }

  Stubs alice = Trusting(house, authority, authority.Issue("alice"));
  Stubs bob = Trusting(house, authority, authority.Issue("bob"));
  house.executor().Hold();
  v1::GenerateRequest request = GreedyRequest({1, 2}, 4, 100);
  request.set_request_id("of-alice");
  GenerateCall call(alice, request);
  AwaitLoad(bob, [](const auto& load) { return load.running_requests() == 1; });
  EXPECT_FALSE(Abort(bob, "of-alice"));
  EXPECT_TRUE(Abort(alice, "of-alice"));
  house.executor().Release();
  EXPECT_EQ(call.Finish().finished().reason(), v1::FINISH_REASON_ABORTED);
}

TEST(MutualTls, ACallOfAnotherProtocolKeepsItsCallersName) {
  const Authority authority("ours");
  Certified files;
  files.Write(authority.Issue("server"), authority.pem());
  ScriptedServer house(files.Options(true));
  Stubs alice = Trusting(house, authority, authority.Issue("alice"));
  Stubs odd = Trusting(house, authority, authority.Issue("two words"));
  inference::ModelInferRequest request;
  request.set_model_name("scripted");
  auto& ids = *request.add_inputs();
  ids.set_name(kserve::kIdsInput);
  ids.set_datatype("INT32");
  ids.add_shape(1);
  request.add_raw_input_contents(std::string("\1\0\0\0", 4));
  const auto infer = [&request](Stubs& stubs, const std::string& voucher) {
    const auto stub = inference::GRPCInferenceService::NewStub(stubs.channel);
    grpc::ClientContext context;
    if (!voucher.empty()) context.AddMetadata(kVoucherHeader, voucher);
    inference::ModelInferResponse response;
    return stub->ModelInfer(&context, request, &response);
  };
  EXPECT_TRUE(infer(alice, "").ok());
  EXPECT_EQ(infer(odd, "").error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(infer(odd, "alice").error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(infer(odd, std::string(52, 'x') + "alice").error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

TEST(Tls, CertificatesAreReplacedWhileStreamsRun) {
  const Authority authorities[] = {Authority("even"), Authority("odd")};
  Certified files;
  files.Write(authorities[1].Issue("server"));
  ScriptedServer house(files.Options());
  house.executor().Hold();
  Stubs first = Trusting(house, authorities[1]);
  GenerateCall stream(first, GreedyRequest({1, 2}, 4, 2 * kRounds));
  for (int round = 0; round < kRounds; ++round) {
    // Those who trust the new authority alone get in once the new certificate is in use.
    files.Write(authorities[round % 2].Issue("server"));
    house.server().Reload();
    for (;;) {
      Stubs newcomer = Trusting(house, authorities[round % 2]);
      const grpc::Status status = CallMethod(newcomer, "GetModel");
      if (status.ok()) break;
      ASSERT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
    }
    house.executor().Allow(1);
    ASSERT_TRUE(stream.Read()) << "round " << round;
  }
  house.executor().Release();
  const Generated got = stream.Finish();
  EXPECT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_THAT(got.ids(), SizeIs(2 * kRounds));
}

TEST(Tls, ABrokenNewCertificateLeavesTheOldInUse) {
  const Authority authority("ours");
  const Issued issued = authority.Issue("server"), other = authority.Issue("server");
  Certified files;
  files.Write(issued);
  ScriptedServer house(files.Options());
  for (const Issued& broken :
       {Issued{"garbage", issued.key}, Issued{issued.certificate, other.key},
        authority.Issue("server", {.until = -60}), authority.Issue("server", {.key = "ED25519"})}) {
    files.Write(broken);
    const std::string log = ReloadUntilLogged(house.server(), "reload_failed");
    EXPECT_THAT(log, AllOf(HasSubstr("what=certificates"), HasSubstr("the old stays in use")));
    Stubs newcomer = Trusting(house, authority);
    EXPECT_TRUE(CallMethod(newcomer, "GetModel").ok());
  }
}

TEST(Tls, ClientsCanUseEveryKindOfKeyThatIsTaken) {
  const Authority authority("ours");
  for (const char* key : {"P-256", "P-384", "P-521", "RSA2048"}) {
    Certified files;
    files.Write(authority.Issue("server", {.key = key}));
    ScriptedServer house(files.Options());
    Stubs stubs = Trusting(house, authority);
    EXPECT_TRUE(CallMethod(stubs, "GetModel").ok()) << key;
  }
}

TEST(Tls, ABrokenCertificateAtTheStartRefusesToStart) {
  const Authority authority("ours");
  Certified files;
  ServerOptions options;
  options.listen_address = "127.0.0.1:0";
  options.keepalive = absl::Seconds(30);
  options.config = files.Options().config;
  const auto metrics = Metrics::Create("");
  const absl::Status missing = GrpcServer::Start(options, **metrics).status();
  EXPECT_TRUE(absl::IsInvalidArgument(missing));
  EXPECT_THAT(std::string(missing.message()), HasSubstr("server.crt cannot be read"));
  files.Write({"garbage", authority.Issue("server").key});
  const absl::Status garbage = GrpcServer::Start(options, **metrics).status();
  EXPECT_TRUE(absl::IsInvalidArgument(garbage));
  EXPECT_THAT(std::string(garbage.message()), HasSubstr("no PEM certificate"));
}

TEST(Plaintext, BeyondThisMachineItTakesAWordFromTheOperator) {
  const auto metrics = Metrics::Create("");
  ServerOptions options;
  options.slots = 1;
  options.keepalive = absl::Seconds(30);
  for (const char* local : {"127.0.0.1:0", "127.0.0.2:0", "localhost:0"}) {
    options.listen_address = local;
    EXPECT_TRUE(GrpcServer::Start(options, **metrics).ok()) << local;
  }
  options.listen_address = "0.0.0.0:0";
  const absl::Status refused = GrpcServer::Start(options, **metrics).status();
  EXPECT_TRUE(absl::IsInvalidArgument(refused));
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("--listen_address=0.0.0.0:0"), HasSubstr("tls.certificate_file"),
                    HasSubstr("plaintext_allowed: true")));
  options.config.plaintext_allowed = true;
  EXPECT_TRUE(GrpcServer::Start(options, **metrics).ok());
  options.config.plaintext_allowed = false;
  const Authority authority("ours");
  Certified files;
  files.Write(authority.Issue("server"));
  options.config.tls = files.Options().config.tls;
  EXPECT_TRUE(GrpcServer::Start(options, **metrics).ok());
}

}  // namespace
}  // namespace catserve::testing

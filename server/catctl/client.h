// A connection to catserved, and how its errors are told.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "catserve/v1/generation.grpc.pb.h"
#include "catserve/v1/model.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/status.h"

namespace catserve {

inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;

struct Client {
  std::string address;
  std::string token;  // empty: none
  std::unique_ptr<v1::Generation::Stub> generation;
  std::unique_ptr<v1::Models::Stub> models;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;
};

// To --server, with what --token_file, CATSERVE_TOKEN and the flags of TLS say; connects with the
// first call. Errors: INVALID_ARGUMENT or NOT_FOUND naming the flag.
absl::StatusOr<Client> Connect();

// A call that --timeout_seconds limits (`seconds_default` if the flag is 0; 0: no limit) and Ctrl-C
// cancels while it lives, with the client's token. Threads may have one each.
class Call {
 public:
  explicit Call(const Client& client, double seconds_default = 0);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  grpc::ClientContext context;
};

// Blocks SIGINT for all threads to come; from now on the first Ctrl-C cancels every live Call, so
// that the server stops working on it, and the second ends the process. Call it first.
void WatchInterrupts();
bool Interrupted();

// Prints one line that says what went wrong and what to do. Returns the exit code. `answered`: the
// server was there before and has sent something.
int Fail(const grpc::Status& status, const Client& client, bool answered = false);
int FailUsage(absl::string_view message);

// The content of a file, or of stdin for "-". Errors: NOT_FOUND naming the file,
// INVALID_ARGUMENT for one without an end.
absl::StatusOr<std::string> ReadInput(const std::string& path);

// "4,8,16" to numbers. Errors: INVALID_ARGUMENT naming the flag.
absl::StatusOr<std::vector<int32_t>> ReadNumbers(absl::string_view flag, const std::string& list);

}  // namespace catserve

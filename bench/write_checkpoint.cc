// Writes a checkpoint with random weights: write_checkpoint SHAPE DIRECTORY
#include <cstdio>
#include <string>

#include "bench/random_checkpoint.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: write_checkpoint SHAPE DIRECTORY\n", stderr);
    return 2;
  }
  const absl::Status status = catserve::WriteRandomCheckpoint(argv[1], argv[2]);
  if (status.ok()) return 0;
  std::fprintf(stderr, "write_checkpoint: %s\n", std::string(status.message()).c_str());
  return 1;
}

// Launches of what is done with logits. (A block to a row.)
#include "kernels/cuda/sample.cuh"
#include "kernels/cuda/score_tokens.cuh"

namespace catserve::cuda {

void LaunchSample(const SampleArgs& args, int rows, Stream stream) {
  if (rows > 0) Launch(Sample, SampleShape(rows), args, stream);
}

void LaunchScoreTokens(const ScoreTokensArgs& args, int rows, Stream stream) {
  if (rows > 0) Launch(ScoreTokens, ScoreTokensShape(rows), args, stream);
}

}  // namespace catserve::cuda

#include "bench/floor.h"

#include <algorithm>
#include <cmath>
#include <string_view>

namespace catserve {
namespace {

double WeightsPerLayer(const StackDescription& s) {
  const double heads = static_cast<double>(s.heads + 2 * s.kv_heads) * s.head_dim;
  return s.dim * (heads + s.dim) + 3.0 * s.dim * s.feed_forward;
}

// An operation's floor: what it reads over the bandwidth, or what it computes over the rate.
double Floor(const Ceilings& m, double bytes, double multiply_adds,
             std::string_view weights = "F32") {
  return std::max(bytes / m.read_bytes_per_second, 2 * multiply_adds / m.OpsPerSecond(weights));
}

double Stack(const Ceilings& m, const StackDescription& s, double weight_bytes, double rows,
             std::string_view weights) {
  return Floor(m, weight_bytes, rows * s.layers * WeightsPerLayer(s), weights);
}

double Attention(const Ceilings& m, const ModelDescription& d, double rows, double entries,
                 double entry_reads) {
  const StackDescription& s = d.decoder;
  const double madds = rows * entries * s.layers * s.heads * s.head_dim * 2.0;
  return Floor(m, entry_reads * static_cast<double>(d.geometry.bytes_per_entry), madds);
}

double Output(const Ceilings& m, const ModelDescription& d, double rows) {
  return Floor(m, static_cast<double>(d.output_weight_bytes),
               rows * d.geometry.vocab_size * d.decoder.dim, d.weight_dtype);
}

// Compressing `chunks` chunks: layers, attention within each, projection. A weight is read at most
// once a step, and not at all when no chunk closes.
double Compress(const Ceilings& m, const ModelDescription& d, int32_t c, double chunks) {
  const StackDescription& s = d.compressor;
  const double rows = chunks * (c + (d.geometry.kind == ModelKind::kCat ? 2 : 1));
  const double reads = std::min(1.0, chunks);
  const double within = rows * rows / chunks * s.layers * s.heads * s.head_dim * 2.0;
  return Stack(m, s, reads * static_cast<double>(d.compressor_weight_bytes), rows, d.weight_dtype) +
         Floor(m, 0, within) +
         Floor(m, reads * static_cast<double>(d.projection_weight_bytes.at(c)),
               chunks * c * s.dim * d.decoder.dim, d.weight_dtype);
}

}  // namespace

double DecodeStepFloor(const ModelDescription& d, const Ceilings& m, int32_t chunk_size,
                       double sequences, double tokens) {
  const double extra = chunk_size > 0 ? 1.0 / chunk_size : 0.0;  // a closing runs two rows, not one
  const double rows = sequences * (1 + extra * SeparatorEntries(d.geometry));
  double entries = tokens;
  if (chunk_size > 0) entries = tokens / chunk_size + 1.5 + (chunk_size - 1) / 2.0;
  double floor =
      Stack(m, d.decoder, static_cast<double>(d.decoder_weight_bytes), rows, d.weight_dtype) +
      Attention(m, d, rows, entries, sequences * entries) + Output(m, d, sequences);
  if (chunk_size > 0) floor += Compress(m, d, chunk_size, sequences * extra);
  return floor;
}

double PrefillFloor(const ModelDescription& d, const Ceilings& m, int32_t chunk_size,
                    double tokens) {
  double rows = tokens;
  double floor = Output(m, d, 1);
  if (chunk_size > 0) {
    const double chunks = std::floor(tokens / chunk_size);
    rows = chunks + 2 + std::fmod(tokens, chunk_size);
    if (chunks > 0) floor += Compress(m, d, chunk_size, chunks);
  }
  return floor +
         Stack(m, d.decoder, static_cast<double>(d.decoder_weight_bytes), rows, d.weight_dtype) +
         Attention(m, d, rows, rows / 2, rows);
}

}  // namespace catserve

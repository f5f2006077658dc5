#include "engine/model/tensor_names.h"

namespace catserve {
namespace {

constexpr LayerNames kAuthorsLayer{.attention_norm = "attention_norm",
                                   .qkv = "attention.wqkv",
                                   .q = nullptr,
                                   .k = nullptr,
                                   .v = nullptr,
                                   .q_norm = "attention.q_norm",
                                   .k_norm = "attention.k_norm",
                                   .o = "attention.wo",
                                   .ffn_norm = "ffn_norm",
                                   .gate = "feed_forward.fc_1",
                                   .up = "feed_forward.fc_2",
                                   .down = "feed_forward.proj"};

constexpr TensorNames kAuthors{.tokens = "wte.weight",
                               .firsts = "dummy_fx.weight",
                               .separator = "seperator.weight",
                               .output = "output.weight",
                               .chunk_tokens = "f.wte.weight",
                               .chunk_positions = "f.pos_tokens.weight",
                               .chunk_levels = "f.adaptive_token.weight",
                               .projection = "f.proj_fx.weight",
                               .decoder = {"", kAuthorsLayer},
                               .compressor = {"f.", kAuthorsLayer}};

constexpr LayerNames kFlaDecoderLayer{.attention_norm = "attn_norm",
                                      .qkv = nullptr,
                                      .q = "attn.q_proj",
                                      .k = "attn.k_proj",
                                      .v = "attn.v_proj",
                                      .q_norm = "attn.q_norm",
                                      .k_norm = "attn.k_norm",
                                      .o = "attn.o_proj",
                                      .ffn_norm = "mlp_norm",
                                      .gate = "mlp.gate_proj",
                                      .up = "mlp.up_proj",
                                      .down = "mlp.down_proj"};

constexpr LayerNames kFlaCompressorLayer{.attention_norm = "attn_norm",
                                         .qkv = nullptr,
                                         .q = "q_proj",
                                         .k = "k_proj",
                                         .v = "v_proj",
                                         .q_norm = nullptr,
                                         .k_norm = nullptr,
                                         .o = "o_proj",
                                         .ffn_norm = "mlp_norm",
                                         .gate = "mlp.gate_proj",
                                         .up = "mlp.up_proj",
                                         .down = "mlp.down_proj"};

constexpr TensorNames kFla{.tokens = "model.embeddings.weight",
                           .firsts = "model.adaptive_token.weight",
                           .separator = "model.separator.weight",
                           .output = "lm_head.weight",
                           .chunk_tokens = "model.compressor.wte.weight",
                           .chunk_positions = "model.compressor.pos_tokens.weight",
                           .chunk_levels = "model.compressor.adaptive_tokens.weight",
                           .projection = "model.compressor.proj_fx.weight",
                           .decoder = {"model.", kFlaDecoderLayer},
                           .compressor = {"model.compressor.", kFlaCompressorLayer}};

}  // namespace

const TensorNames& NamesOf(CheckpointLayout layout) {
  return layout == CheckpointLayout::kFla ? kFla : kAuthors;
}

}  // namespace catserve

"""The layout of the authors' training code: what a state dict says about its model.

Nearly everything follows from the shapes. What does not: the number of heads where there are no
query and key norms, a dense model's block size, the vocabulary without its padding.
"""

import re

from convert.errors import ConversionError

PREFIXES = ("module.", "_orig_mod.")  # of parallel and of compiled models
BUFFERS = {"cos", "sin", "cos_gen", "sin_gen", "k_cache", "v_cache"}
CHUNK_SIZE_MIN = 4


def plain_names(state):
    """The tensors without wrappers' prefixes and without buffers that are computed anew."""
    tensors = {}
    for name, tensor in state.items():
        while name.startswith(PREFIXES):
            name = name.split(".", 1)[1]
        if name.rsplit(".", 1)[-1] in BUFFERS:
            continue
        if name in tensors:
            raise ConversionError(f"{name} stands twice, with and without a prefix")
        tensors[name] = tensor
    return tensors


class Shapes:
    """Shapes by name, with errors that say what was looked for."""

    def __init__(self, tensors):
        self.shapes = {name: tensor.shape for name, tensor in tensors.items()}

    def __contains__(self, name):
        return name in self.shapes

    def matrix(self, name):
        shape = self.shapes.get(name)
        if shape is None:
            raise ConversionError(f"{name} is missing: this is no state dict of the model")
        if len(shape) != 2 or 0 in shape:
            raise ConversionError(f"{name} has shape {list(shape)}, expected a matrix")
        return shape

    def layers(self, prefix):
        pattern = re.compile(re.escape(prefix) + r"layers\.(\d+)\.")
        numbers = {int(m[1]) for m in map(pattern.match, self.shapes) if m}
        if numbers != set(range(len(numbers))) or not numbers:
            raise ConversionError(f"{prefix}layers: numbers are {sorted(numbers)}")
        return len(numbers)


def infer_stack(shapes, prefix, vocab, heads, options):
    """One stack's part of config.json. heads: as given by the user, or None."""
    padded, dim = shapes.matrix(prefix + "wte.weight")
    layer = prefix + "layers.0."
    qkv_rows, _ = shapes.matrix(layer + "attention.wqkv.weight")
    hidden, _ = shapes.matrix(layer + "feed_forward.fc_1.weight")
    q_norm = layer + "attention.q_norm.weight"
    stack = "the compressor" if prefix else "the decoder"
    if q_norm in shapes:
        head_dim = shapes.shapes[q_norm][0]
        if heads is not None and heads * head_dim != dim:
            raise ConversionError(f"{stack} has {dim // head_dim} heads, not {heads}")
        heads = dim // head_dim
    elif heads is None:
        flag = "--compressor-heads" if prefix else "--heads"
        raise ConversionError(f"{stack}'s number of heads is in no shape: give {flag}")
    if heads < 1 or dim % heads:
        raise ConversionError(f"{stack}'s {heads} heads do not divide its width {dim}")
    head_dim = dim // heads
    if not vocab <= padded:
        raise ConversionError(f"the vocabulary has {vocab} tokens, {prefix}wte.weight has "
                              f"{padded} rows")
    return {"vocab_size": vocab, "padded_vocab_size": padded, "n_layer": shapes.layers(prefix),
            "n_head": heads, "dim": dim, "intermediate_size": hidden,
            "n_local_heads": (qkv_rows // head_dim - heads) // 2, "head_dim": head_dim,
            "rope_base": options.rope_base, "norm_eps": options.norm_eps, "rope_n_elem": head_dim,
            "use_fused_ops": False, "use_qk_norm": q_norm in shapes}


def infer(tensors, options):
    """config.json of a state dict. options: vocab_size, heads, compressor_heads, block_size,
    chunk_sizes, rope_base, norm_eps; None where the user said nothing."""
    shapes = Shapes(tensors)
    vocab = options.vocab_size or shapes.matrix("wte.weight")[0]
    decoder = infer_stack(shapes, "", vocab, options.heads, options)
    if "f.proj_fx.weight" not in shapes:
        if not options.block_size:
            raise ConversionError("a dense model's context is in no shape: give --block-size")
        decoder["block_size"] = options.block_size
        return {"model_type": "dense", "decoder": decoder, "compressor": None}
    compressor = infer_stack(shapes, "f.", vocab, options.compressor_heads, options)
    adaptive = "f.adaptive_token.weight" in shapes
    chunk = shapes.matrix("f.proj_fx.weight")[1] // compressor["dim"]
    positions = shapes.matrix("f.pos_tokens.weight")[0]
    block = positions if adaptive else positions * chunk
    if options.block_size not in (None, block):
        raise ConversionError(f"the context is {block} tokens by f.pos_tokens.weight, "
                              f"not {options.block_size}")
    for stack in (decoder, compressor):
        stack.update(block_size=block, chunk_size=chunk, dim_fx=decoder["dim"],
                     num_chunks=block // max(chunk, 1))
    sizes = [chunk]
    if adaptive:
        powers = [1 << p for p in range(chunk.bit_length()) if CHUNK_SIZE_MIN <= 1 << p <= chunk]
        sizes = options.chunk_sizes or powers or [chunk]
        if odd := [size for size in sizes if size > chunk or size & (size - 1)]:
            raise ConversionError(f"--chunk-sizes: {odd[0]} is not offered by this checkpoint, but "
                                  f"powers of two up to {chunk}")
    return {"model_type": "cat" if adaptive else "cat_fixed", "decoder": decoder,
            "compressor": compressor, "chunk_sizes": sizes}


def stack_shapes(stack, prefix):
    dim, hidden, head = stack["dim"], stack["intermediate_size"], stack["head_dim"]
    shapes = {prefix + "norm.weight": (dim,),
              prefix + "wte.weight": (stack["padded_vocab_size"], dim)}
    for i in range(stack["n_layer"]):
        layer = f"{prefix}layers.{i}."
        qkv = (stack["n_head"] + 2 * stack["n_local_heads"]) * head
        shapes |= {layer + "attention_norm.weight": (dim,), layer + "ffn_norm.weight": (dim,),
                   layer + "attention.wqkv.weight": (qkv, dim),
                   layer + "attention.wo.weight": (dim, dim),
                   layer + "feed_forward.fc_1.weight": (hidden, dim),
                   layer + "feed_forward.fc_2.weight": (hidden, dim),
                   layer + "feed_forward.proj.weight": (dim, hidden)}
        if stack["use_qk_norm"]:
            shapes |= {layer + f"attention.{n}_norm.weight": (head,) for n in "qk"}
    return shapes


def expected_shapes(config):
    """{name: shape} of every tensor that a model of this configuration has."""
    decoder, compressor = config["decoder"], config["compressor"]
    shapes = stack_shapes(decoder, "")
    shapes["output.weight"] = (decoder["padded_vocab_size"], decoder["dim"])
    if compressor is None:
        return shapes
    adaptive = config["model_type"] == "cat"
    d, e, chunk = decoder["dim"], compressor["dim"], compressor["chunk_size"]
    levels = chunk.bit_length() if adaptive else 1
    shapes |= stack_shapes(compressor, "f.")
    shapes["f.proj_fx.weight"] = (d, chunk * e)
    shapes["f.pos_tokens.weight"] = (decoder["block_size" if adaptive else "num_chunks"], e)
    shapes["dummy_fx.weight"] = (levels, d)
    if adaptive:
        shapes["f.adaptive_token.weight"] = (levels, e)
        shapes["seperator.weight"] = (1, d)
    return shapes


def check(tensors, config):
    """Refuses a state dict that does not hold exactly the model's tensors."""
    expected = expected_shapes(config)
    for name, shape in expected.items():
        if name not in tensors:
            raise ConversionError(f"{name} is missing, expected shape {list(shape)}")
        if tensors[name].shape != shape:
            raise ConversionError(f"{name} has shape {list(tensors[name].shape)}, "
                                  f"expected {list(shape)}")
    unknown = sorted(set(tensors) - set(expected))
    if unknown:
        raise ConversionError(f"{unknown[0]} is no tensor of the model"
                              + (f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""))

#!/usr/bin/env python3
"""tools/convert_checkpoint.py: what it writes, and that everything else is refused in one line."""

import array
import collections
import io
import json
import os
import pathlib
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import types
import unittest
import unittest.mock
import zipfile

import tiny_state

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests/data/convert"
sys.path.insert(0, str(ROOT / "tools"))

import convert_checkpoint  # noqa: E402
from convert.errors import ConversionError  # noqa: E402

HEADS = ["--heads", "4", "--compressor-heads", "2"]


def run(*arguments):
    return subprocess.run([sys.executable, ROOT / "tools/convert_checkpoint.py", *arguments],
                          text=True, capture_output=True, check=False)


def read_safetensors(path):
    data = path.read_bytes()
    length, = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8:8 + length]), data[8 + length:]
    return {name: (t["dtype"], tuple(t["shape"]), body[slice(*t["data_offsets"])])
            for name, t in header.items()}


class TorchFake:
    """Pickles that name PyTorch's things, made without it: tensors are (shape, bytes)."""

    def __init__(self):
        self.torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
        self.storage = type("FloatStorage", (), {"__module__": "torch"})
        self.torch.FloatStorage, self.torch._utils = self.storage, utils
        self.rebuild = lambda: None
        self.rebuild.__module__ = "torch._utils"
        self.rebuild.__qualname__ = self.rebuild.__name__ = "_rebuild_tensor_v2"
        utils._rebuild_tensor_v2 = self.rebuild
        sys.modules |= {"torch": self.torch, "torch._utils": utils}

    def save(self, path, state, stride=None, numbers=None):
        """numbers: what the storages claim to hold, where that is a lie."""
        members = {}
        fake = self

        class Tensor:
            def __init__(self, shape, data):
                self.shape, self.data = shape, data

            def __reduce__(self):
                dense, step = [], 1
                for extent in reversed(self.shape):
                    dense.insert(0, step)
                    step *= extent
                return fake.rebuild, (Storage(self.data), 0, self.shape,
                                      stride or tuple(dense), False, collections.OrderedDict())

        class Storage:
            def __init__(self, data):
                self.data = data

        class Pickler(pickle.Pickler):
            def persistent_id(self, obj):
                if not isinstance(obj, Storage):
                    return None
                key = str(len(members))
                members[key] = obj.data
                return "storage", fake.storage, key, "cpu", numbers or len(obj.data) // 4

        text = io.BytesIO()
        Pickler(text, protocol=2).dump(
            {name: Tensor(*value) if isinstance(value, tuple) else value
             for name, value in state.items()})
        with zipfile.ZipFile(path, "w") as out:
            out.writestr("archive/data.pkl", text.getvalue())
            for key, data in members.items():
                out.writestr(f"archive/data/{key}", data)

    def close(self):
        del sys.modules["torch"], sys.modules["torch._utils"]


class ConvertTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out, self.pt = pathlib.Path(folder.name) / "out", pathlib.Path(folder.name) / "s.pt"
        self.fake = TorchFake()
        self.addCleanup(self.fake.close)
        self.state = tiny_state.state()

    def convert(self, *options):
        result = run(self.pt, self.out, *options)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads((self.out / "config.json").read_text()), \
            read_safetensors(self.out / "model.safetensors")

    def refusal(self, *options, source=None):
        before = sorted(self.out.parent.rglob("*"))
        result = run(source or self.pt, self.out, *options)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertRegex(result.stderr, r"\Aconvert_checkpoint: .*\n\Z")
        self.assertEqual(sorted(self.out.parent.rglob("*")), before, "something was left behind")
        return result.stderr

    def test_what_pytorch_wrote_is_read_to_the_last_bit(self):
        self.pt = DATA / "state_dict.pt"
        config, tensors = self.convert("--dtype", "f32")
        self.assertEqual(set(tensors), set(self.state), "prefixes are gone, all tensors are there")
        for name, (shape, data) in self.state.items():
            self.assertEqual(tensors[name], ("F32", shape, data), name)
        self.assertEqual(config["model_type"], "cat")
        self.assertEqual(config["chunk_sizes"], [4, 8])
        decoder = config["decoder"]
        self.assertEqual((decoder["n_head"], decoder["n_local_heads"], decoder["head_dim"],
                          decoder["block_size"], decoder["num_chunks"], decoder["vocab_size"]),
                         (4, 2, 4, 64, 8, 40))

    def test_names_with_and_without_wrappers_give_the_same(self):
        for prefix in ("", "module.", "_orig_mod.", "module._orig_mod."):
            named = {prefix + name: value for name, value in self.state.items()}
            named[prefix + "cos"] = ((1,), bytes(4))  # a buffer, computed anew
            self.fake.save(self.pt, named)
            _, tensors = self.convert("--dtype", "f32")
            self.assertEqual({n: t[2] for n, t in tensors.items()},
                             {n: data for n, (_, data) in self.state.items()})

    def test_bf16_rounds_matrices_to_nearest_and_keeps_norms(self):
        self.fake.save(self.pt, self.state)
        _, tensors = self.convert()
        for name, (dtype, shape, data) in tensors.items():
            if len(shape) == 1:
                self.assertEqual((dtype, data), ("F32", self.state[name][1]))
                continue
            wide = array.array("I", self.state[name][1])
            self.assertEqual(list(array.array("H", data)),
                             [(x + 0x7FFF + (x >> 16 & 1)) >> 16 for x in wide], name)

    def test_what_no_shape_says_comes_from_flags_or_a_file(self):
        for name in [n for n in self.state if "q_norm" in n or "k_norm" in n]:
            del self.state[name]
        self.fake.save(self.pt, self.state)
        self.assertIn("number of heads is in no shape: give --heads", self.refusal())
        self.assertIn("give --compressor-heads", self.refusal("--heads", "4"))
        self.assertIn("5 heads do not divide its width 16", self.refusal("--heads", "5"))
        config, _ = self.convert(*HEADS, "--vocab-size", "37", "--chunk-sizes", "1,2")
        self.assertFalse(config["decoder"]["use_qk_norm"])
        given = self.pt.with_suffix(".json")
        given.write_text('{"heads": 4, "compressor_heads": 2, "vocab_size": 37, '
                         '"chunk_sizes": [1, 2], "norm_eps": 1e-6}')
        from_file, _ = self.convert("--config", given)
        self.assertEqual(from_file["decoder"].pop("norm_eps"), 1e-6)
        self.assertEqual(config["decoder"].pop("norm_eps"), 1e-5)
        self.assertEqual(from_file["decoder"], config["decoder"])
        self.assertEqual(from_file["chunk_sizes"], config["chunk_sizes"])

    def test_a_dense_model_needs_its_context(self):
        dense = {n: v for n, v in self.state.items()
                 if not n.startswith("f.") and n not in ("dummy_fx.weight", "seperator.weight")}
        self.fake.save(self.pt, dense)
        self.assertIn("give --block-size", self.refusal())
        config, _ = self.convert("--block-size", "4096")
        self.assertEqual((config["model_type"], config["compressor"]), ("dense", None))

    def test_tensors_that_do_not_fit_are_named(self):
        cases = {"layers.1.ffn_norm.weight": ((15,), bytes(60)),
                 "f.pos_tokens.weight": ((60,), bytes(240)),
                 "dummy_fx.weight": ((3, 16), bytes(192))}
        for name, value in cases.items():
            self.fake.save(self.pt, self.state | {name: value})
            self.assertIn(f"s.pt: {name} has shape", self.refusal())
        self.fake.save(self.pt, self.state | {"layers.0.attention.bias": ((4,), bytes(16))})
        self.assertIn("layers.0.attention.bias is no tensor of the model", self.refusal())
        for name in self.state:
            if name.endswith("wo.weight"):
                self.fake.save(self.pt, {n: v for n, v in self.state.items() if n != name})
                self.assertIn(f"{name} is missing", self.refusal())
        infinite = struct.pack("<f", float("inf")) * 16
        self.fake.save(self.pt, self.state | {"seperator.weight": ((1, 16), infinite)})
        self.assertIn("seperator.weight holds a value that is no finite number", self.refusal())

    def test_a_pickle_that_is_no_plain_tensors_runs_nothing(self):
        marker = self.out.parent / "it_ran"

        class Hostile:
            def __reduce__(self):
                return pathlib.Path.touch, (marker,)

        self.fake.save(self.pt, self.state | {"x": Hostile()})
        self.assertIn("is no plain tensor", self.refusal())
        self.assertFalse(marker.exists())
        self.fake.save(self.pt, self.state | {"x": 3})
        self.assertIn("more than named tensors", self.refusal())
        self.fake.save(self.pt, {"wte.weight": self.state["wte.weight"]}, stride=(1, 40))
        self.assertIn("is a view with gaps", self.refusal())
        self.fake.save(self.pt, self.state, numbers=1)
        self.assertIn("reaches past its storage", self.refusal())
        self.fake.save(self.pt, self.state, numbers=1 << 30)
        self.assertIn("expected 1073741824 numbers of 4", self.refusal())

    def test_damaged_files_are_refused_in_one_line(self):
        self.assertIn("s.pt: cannot be read: No such file or directory\n", self.refusal())
        whole = (DATA / "state_dict.pt").read_bytes()
        for content in (b"", b"\x80\x02}q\x00.", whole[:5000], whole[:-30]):
            self.pt.write_bytes(content)
            self.assertIn("expected what torch.save writes", self.refusal())
        at = whole.index(b"FloatStorage")
        self.pt.write_bytes(whole[:at] + b"EvilsStorage" + whole[at + 12:])
        self.refusal()
        self.assertIn("/dev/zero: is no regular file", self.refusal(source="/dev/zero"))

    def test_a_full_disk_and_a_signal_leave_nothing_behind(self):
        self.pt = DATA / "state_dict.pt"
        command = [sys.executable, ROOT / "tools/convert_checkpoint.py", self.pt, self.out]
        full = subprocess.run(["/bin/sh", "-c", 'ulimit -f 1; exec "$@"', "-", *command],
                              text=True, capture_output=True, check=False)
        self.assertRegex(full.stderr, r"\Aconvert_checkpoint: .*/out: File too large\n\Z")

        def halfway(options):
            with convert_checkpoint.all_or_nothing(options.out) as work:
                (work / "half").write_text("a model")
                os.kill(os.getpid(), number)

        self.addCleanup(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        for number in (signal.SIGINT, signal.SIGTERM):
            with unittest.mock.patch.object(convert_checkpoint, "convert", halfway), \
                    unittest.mock.patch("sys.argv", list(map(str, command[1:]))), \
                    self.assertRaises(SystemExit) as ended:
                convert_checkpoint.main()
            self.assertEqual(ended.exception.code, 128 + number)
        self.assertEqual(list(self.out.parent.iterdir()), [])

    def test_a_file_with_flipped_bytes_was_a_traceback(self):
        whole = (DATA / "state_dict.pt").read_bytes()
        with zipfile.ZipFile(DATA / "state_dict.pt") as archive:
            header = archive.getinfo("state_dict/data/0").header_offset
        numbers = header + 30 + sum(struct.unpack("<2H", whole[header + 26:header + 30]))
        for at, complaint in ((header, "data/0 is damaged: Bad magic number"),
                              (numbers, "data/0 is damaged: Bad CRC-32"),
                              (whole.index(b"PK\x01\x02") + 6, "zip file version")):
            self.pt.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1:])
            self.assertIn(complaint, self.refusal())

    def test_options_that_no_server_would_load_were_converted(self):
        self.fake.save(self.pt, self.state)
        given = self.pt.with_suffix(".json")

        def refused(*options):
            with self.assertRaises(ConversionError) as caught:
                convert_checkpoint.convert(
                    convert_checkpoint.parse(list(map(str, (self.pt, self.out, *options)))))
            return str(caught.exception)

        for name, values, allowed in (
                ("vocab_size", (0, -7, 1.5, "x", True), "a whole number, 1 or more"),
                ("norm_eps", (0, -1, float("nan"), float("inf"), "a", []), "above 0, at most 1"),
                ("rope_base", (-1, float("nan"), "1"), "above 0, at most 1e+12"),
                ("chunk_sizes", (5, [], {}, [0], [-4], [4, 4], [8, 4], [4, "a"]), "a rising list"),
                ("chunk_sizes", ([3], [4, 16]), "powers of two up to 8")):
            for value in values:
                given.write_text(json.dumps({name: value}))
                self.assertIn(allowed, refused("--config", given), (name, value))
        self.assertIn("--norm-eps 0.0: must be a number above 0", refused("--norm-eps", "0"))
        tokenizer = self.pt.parent / "tokenizer.json"
        tokenizer.write_text('{"model": {"vocab": {"a": -5}}, "added_tokens": []}')
        self.assertIn("an id is no whole number", refused("--tokenizer", tokenizer))
        self.assertIn("s.json: is no tokenizer: name tokenizer.json",
                      refused("--tokenizer", given))
        self.assertFalse(self.out.exists())

    def test_files_that_are_not_there_or_in_the_way_are_named(self):
        self.fake.save(self.pt, self.state)
        none = self.out.parent / "none"
        for what, options in (("no such file or folder", ("--tokenizer", none)),
                              ("No such file or directory", ("--config", none))):
            self.assertRegex(self.refusal(*options), f"none: cannot be read: .*{what}")
        model = none.with_suffix(".model")
        self.assertIn("none.model: cannot be read: there is no such", self.refusal(source=model))
        (self.out.parent / "tokenizer.json").write_text('{"model": []}')
        self.assertIn("tokenizer.json: is no tokenizer: ",
                      self.refusal("--tokenizer", self.out.parent / "tokenizer.json"))
        self.out.write_text("a file of somebody's")
        self.assertIn("out: is a file; name a folder", self.refusal())

    def test_a_failure_leaves_nothing_behind_and_a_success_what_was_there(self):
        del self.state["wte.weight"]
        self.fake.save(self.pt, self.state)
        tokenizer = ROOT / "tests/data/tokenizers/bytelevel"
        self.assertIn("wte.weight is missing", self.refusal("--tokenizer", tokenizer))
        (self.out / "notes").mkdir(parents=True)
        (self.out / "config.json").write_text("older")
        self.refusal("--tokenizer", tokenizer)
        self.assertEqual((self.out / "config.json").read_text(), "older")
        self.pt = DATA / "state_dict.pt"
        config, _ = self.convert("--tokenizer", DATA / "tokenizer.model", "--vocab-size", "40")
        self.assertEqual(config["model_type"], "cat")
        self.assertEqual({p.name for p in self.out.iterdir()},
                         {"notes", "config.json", "model.safetensors", "tokenizer.json"})


if __name__ == "__main__":
    unittest.main()

"""tools/synthetic: shapes against the published ones, files against the safetensors rules, weights against their recipe.

Exit status 77 without numpy.  The last line is cmocka's, which tools/test.sh counts.
"""

import contextlib
import io
import json
import os
import struct
import sys
import tempfile
import unittest
from unittest import mock

try:
    import numpy as np
except ImportError:
    print("skipped: this python3 has no numpy (Debian: python3-numpy)")
    sys.exit(77)

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(REPO, "tools", "synthetic"))
import make_checkpoint  # noqa: E402
import shapes  # noqa: E402
import weights  # noqa: E402

# Bytes of all tensors of the published bf16 checkpoints.
PUBLISHED_NBYTES = {"moonlight": 2 * 15960111936, "mixtral": 2 * 46702792704, "olmoe": 2 * 6919161856,
                    "qwen3": 2 * 30532122624, "deepseek-v2-lite": 2 * 15706484224, "deepseek-v3": 2 * 671026419200,
                    "qwen2-moe": 2 * 14315784192, "qwen3-235b": 2 * 235093634560, "glm-4.5-air": 2 * 106852251264,
                    "granite": 2 * 3298793472, "phi-3.5-moe": 2 * 41873153344, "dots1": 2 * 142774381696,
                    "glm-4.7-flash": 2 * 29943393920, "minimax-m2": 2 * 228689764864, "ernie-4.5": 2 * 21825437888}

# Some tensors of the published checkpoints, at least one of each kind.
PUBLISHED_TENSORS = {
    "moonlight": {
        "model.embed_tokens.weight": (163840, 2048),
        "model.layers.0.mlp.down_proj.weight": (2048, 11264),
        "model.layers.26.self_attn.q_proj.weight": (3072, 2048),
        "model.layers.26.self_attn.kv_a_proj_with_mqa.weight": (576, 2048),
        "model.layers.26.self_attn.kv_a_layernorm.weight": (512,),
        "model.layers.26.self_attn.kv_b_proj.weight": (4096, 512),
        "model.layers.26.self_attn.o_proj.weight": (2048, 2048),
        "model.layers.1.mlp.gate.weight": (64, 2048),
        "model.layers.1.mlp.gate.e_score_correction_bias": (64,),
        "model.layers.1.mlp.experts.63.gate_proj.weight": (1408, 2048),
        "model.layers.1.mlp.experts.63.down_proj.weight": (2048, 1408),
        "model.layers.1.mlp.shared_experts.up_proj.weight": (2816, 2048),
    },
    "mixtral": {
        "lm_head.weight": (32000, 4096),
        "model.layers.31.self_attn.k_proj.weight": (1024, 4096),
        "model.layers.31.block_sparse_moe.gate.weight": (8, 4096),
        "model.layers.31.block_sparse_moe.experts.7.w1.weight": (14336, 4096),
        "model.layers.31.block_sparse_moe.experts.7.w2.weight": (4096, 14336),
        "model.layers.31.block_sparse_moe.experts.7.w3.weight": (14336, 4096),
        "model.layers.31.post_attention_layernorm.weight": (4096,),
    },
    "olmoe": {
        "model.norm.weight": (2048,),
        "model.layers.15.self_attn.v_proj.weight": (2048, 2048),
        "model.layers.15.self_attn.q_norm.weight": (2048,),
        "model.layers.15.self_attn.k_norm.weight": (2048,),
        "model.layers.15.mlp.gate.weight": (64, 2048),
        "model.layers.15.mlp.experts.63.up_proj.weight": (1024, 2048),
    },
    "qwen3": {
        "model.layers.47.self_attn.q_proj.weight": (4096, 2048),
        "model.layers.47.self_attn.k_proj.weight": (512, 2048),
        "model.layers.47.self_attn.o_proj.weight": (2048, 4096),
        "model.layers.47.self_attn.q_norm.weight": (128,),
        "model.layers.47.input_layernorm.weight": (2048,),
        "model.layers.47.mlp.gate.weight": (128, 2048),
        "model.layers.47.mlp.experts.127.down_proj.weight": (2048, 768),
    },
    "deepseek-v2-lite": {
        "model.layers.0.mlp.down_proj.weight": (2048, 10944),
        "model.layers.26.self_attn.q_proj.weight": (3072, 2048),
        "model.layers.26.mlp.gate.weight": (64, 2048),
    },
    "deepseek-v3": {
        "model.layers.60.self_attn.q_a_proj.weight": (1536, 7168),
        "model.layers.60.self_attn.q_a_layernorm.weight": (1536,),
        "model.layers.60.self_attn.q_b_proj.weight": (24576, 1536),
        "model.layers.60.self_attn.kv_b_proj.weight": (32768, 512),
        "model.layers.3.mlp.experts.255.up_proj.weight": (2048, 7168),
    },
    "qwen2-moe": {
        "model.layers.23.self_attn.k_proj.bias": (2048,),
        "model.layers.23.mlp.shared_expert.gate_proj.weight": (5632, 2048),
        "model.layers.23.mlp.shared_expert_gate.weight": (1, 2048),
        "model.layers.23.mlp.experts.59.down_proj.weight": (2048, 1408),
    },
    "qwen3-235b": {
        "model.layers.93.self_attn.q_proj.weight": (8192, 4096),
        "model.layers.93.mlp.experts.127.up_proj.weight": (1536, 4096),
    },
    "glm-4.5-air": {
        "model.layers.45.self_attn.q_proj.weight": (12288, 4096),
        "model.layers.45.self_attn.q_proj.bias": (12288,),
        "model.layers.45.mlp.gate.e_score_correction_bias": (128,),
        "model.layers.45.mlp.shared_experts.down_proj.weight": (4096, 1408),
    },
    "granite": {
        "model.layers.31.block_sparse_moe.input_linear.weight": (40, 1024, 1536),
        "model.layers.31.block_sparse_moe.output_linear.weight": (40, 1536, 512),
        "model.layers.31.block_sparse_moe.router.layer.weight": (40, 1536),
    },
    "phi-3.5-moe": {
        "lm_head.bias": (32064,),
        "model.norm.bias": (4096,),
        "model.layers.31.self_attn.o_proj.bias": (4096,),
        "model.layers.31.block_sparse_moe.experts.15.w2.weight": (4096, 6400),
    },
    "dots1": {
        "model.layers.61.self_attn.k_proj.weight": (4096, 4096),
        "model.layers.61.self_attn.k_norm.weight": (128,),
        "model.layers.61.mlp.gate.e_score_correction_bias": (128,),
        "model.layers.61.mlp.shared_experts.up_proj.weight": (2816, 4096),
    },
    "glm-4.7-flash": {
        "model.layers.46.self_attn.q_b_proj.weight": (5120, 768),
        "model.layers.46.self_attn.kv_b_proj.weight": (8960, 512),
        "model.layers.46.mlp.experts.63.down_proj.weight": (2048, 1536),
    },
    "minimax-m2": {
        "model.layers.61.self_attn.q_norm.weight": (6144,),
        "model.layers.61.self_attn.k_norm.weight": (1024,),
        "model.layers.61.block_sparse_moe.e_score_correction_bias": (256,),
        "model.layers.61.block_sparse_moe.experts.255.w1.weight": (1536, 3072),
    },
    "ernie-4.5": {
        "model.layers.0.mlp.up_proj.weight": (12288, 2560),
        "model.layers.27.mlp.moe_statics.e_score_correction_bias": (1, 64),
        "model.layers.27.mlp.shared_experts.gate_proj.weight": (3072, 2560),
    },
}

ELEMENT_NBYTES = {"F8_E4M3": 1, "BF16": 2, "F16": 2, "F32": 4}


def as_float32(type_name, raw):
    if type_name == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    if type_name == "F8_E4M3":
        return np.array([e4m3(code) for code in range(256)], np.float32)[np.frombuffer(raw, "u1")]
    return np.frombuffer(raw, {"F16": "<f2", "F32": "<f4"}[type_name]).astype(np.float32)


def e4m3(code):
    sign, exponent, mantissa = -1 if code & 128 else 1, code >> 3 & 15, code & 7
    if code & 127 == 127:
        return float("nan")
    return sign * (mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0**(exponent - 10))


def read_shard(path):
    """{name: (type, values)}; refuses what the safetensors format forbids."""
    with open(path, "rb") as f:
        data = f.read()
    header_nbytes = struct.unpack("<Q", data[:8])[0]
    assert header_nbytes % 8 == 0
    header, body, tensors = json.loads(data[8:8 + header_nbytes]), data[8 + header_nbytes:], {}
    assert header.pop("__metadata__") == {"format": "pt"}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, next_end = entry["data_offsets"]
        assert begin == end, f"{name}: hole or overlap"
        assert next_end - begin == np.prod(entry["shape"]) * ELEMENT_NBYTES[entry["dtype"]], name
        values = as_float32(entry["dtype"], body[begin:next_end])
        tensors[name], end = (entry["dtype"], values.reshape(entry["shape"])), next_end
    assert end == len(body), "bytes behind the last tensor"
    return tensors


class MakeCheckpoint(unittest.TestCase):
    def setUp(self):
        keep = tempfile.TemporaryDirectory()
        self.addCleanup(keep.cleanup)
        self.root = keep.name

    def run_tool(self, name, *words):
        """Exit status and what was said."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = make_checkpoint.main([os.path.join(self.root, name), *words])
        return status, said.getvalue()

    def make(self, name, *words, small=("--layers", "2", "--scale-down", "16", "--vocab-size", "300")):
        """{tensor: (type, values)} and config of a new checkpoint."""
        status, said = self.run_tool(name, *words, *small)
        self.assertEqual(status, 0, said)
        folder = os.path.join(self.root, name)
        files = sorted(f for f in os.listdir(folder) if f.endswith(".safetensors"))
        shards = {f: read_shard(os.path.join(folder, f)) for f in files}
        tensors = {key: value for shard in shards.values() for key, value in shard.items()}
        if len(files) > 1:
            with open(os.path.join(folder, "model.safetensors.index.json"), encoding="utf-8") as f:
                index = json.load(f)
            self.assertEqual(index["weight_map"], {key: f for f, shard in shards.items() for key in shard})
            self.assertEqual(index["metadata"]["total_size"],
                             sum(v.size * ELEMENT_NBYTES[t] for t, v in tensors.values()))
        else:
            self.assertEqual(files, ["model.safetensors"])
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
            return tensors, json.load(f)

    def test_full_shapes_are_the_published_ones(self):
        for shape, nbytes in PUBLISHED_NBYTES.items():
            tensors = list(shapes.list_tensors(shape, shapes.make_config(shape)))
            self.assertEqual(sum(make_checkpoint.tensor_nbytes(t, "bf16") for t in tensors), nbytes, shape)
            self.assertEqual(len({t.name for t in tensors}), len(tensors), shape)
            found = {t.name: t.shape for t in tensors}
            for name, expected in PUBLISHED_TENSORS[shape].items():
                self.assertEqual(found.get(name), expected, f"{shape} {name}")

    def test_dry_run_writes_nothing(self):
        status, said = self.run_tool("a", "--shape", "mixtral", "--dry-run")
        self.assertEqual((status, os.listdir(self.root)), (0, []))
        self.assertIn("46702792704 weights", said)

    def test_every_shape_is_written_whole(self):
        for shape in shapes.SHAPES:
            tensors, config = self.make(shape, "--shape", shape, "--shard-size", "2MB")
            listed = {t.name: t for t in shapes.list_tensors(shape, config)}
            self.assertEqual({name: v.shape for name, (_, v) in tensors.items()},
                             {name: t.shape for name, t in listed.items()})
            self.assertEqual((config["num_hidden_layers"], config["vocab_size"]), (2, 300))
            ids = [config.get(key, 0) for key in shapes.SPECIAL_IDS]
            self.assertTrue(all(i < 300 for each in ids for i in (each if isinstance(each, list) else [each])))
            for name, (type_name, values) in tensors.items():
                kind, std = listed[name].kind, 64 if type_name == "F8_E4M3" else 0.02
                asked = weights.stored_type(listed[name], "bf16")
                self.assertEqual(type_name, weights.TYPES_ALL[asked][0], name)
                self.assertTrue(asked == "bf16" or kind in ("rotary", "scale", "bias") or asked == "f8", name)
                if kind == "norm":
                    self.assertTrue((values == 1).all(), name)
                elif kind == "scale":
                    self.assertTrue((abs(values * 64 / 0.02 - 1) < 2**-8).all(), name)
                elif kind != "rotary":
                    self.assertAlmostEqual(values.std(), std, delta=std * 4 / values.size**0.5, msg=name)
                    self.assertAlmostEqual(values.mean(), 0, delta=std * 5 / values.size**0.5, msg=name)
        self.assertEqual(sorted(os.listdir(self.root)), sorted(shapes.SHAPES))

    def test_types_are_roundings_of_the_same_weights(self):
        exact, config = self.make("f32", "--shape", "olmoe", "--dtype", "f32")
        half, _ = self.make("f16", "--shape", "olmoe", "--dtype", "f16")
        brain, _ = self.make("bf16", "--shape", "olmoe")
        self.assertEqual(config["torch_dtype"], "float32")
        for name, (type_name, values) in exact.items():
            self.assertEqual((type_name, half[name][0], brain[name][0]), ("F32", "F16", "BF16"))
            np.testing.assert_array_equal(half[name][1], values.astype(np.float16).astype(np.float32))
            # Nearest bf16: 8 bits of mantissa, ties cannot be told from a wrong rounding only at exact halves.
            unit = np.exp2(np.floor(np.log2(np.abs(values))) - 7)
            np.testing.assert_array_equal(brain[name][1], np.rint(values / unit) * unit)

    def test_weights_depend_on_seed_and_name_alone(self):
        small = ("--scale-down", "16", "--vocab-size", "2500")  # 2500 x 256: an embedding of several chunks
        two, _ = self.make("two", "--shape", "mixtral", "-t", "2", small=(*small, "--layers", "2"))
        one, _ = self.make("one", "--shape", "mixtral", "-t", "1", "--shard-size", "1MB", small=(*small, "--layers", "1"))
        other, _ = self.make("other", "--shape", "mixtral", "--seed", "2", small=(*small, "--layers", "1"))
        self.assertLess(len(one), len(two))
        for name, (_, values) in one.items():
            np.testing.assert_array_equal(values, two[name][1])
            self.assertEqual((values == other[name][1]).all(), "norm" in name)
        rows = one["model.embed_tokens.weight"][1]
        self.assertEqual(len(np.unique(rows, axis=0)), 2500)

    def test_spread_of_rows_and_columns(self):
        tensors, _ = self.make("a", "--shape", "moonlight", "--row-spread", "0.5", "--column-spread", "0.25")
        matrix = tensors["model.layers.0.mlp.gate_proj.weight"][1]  # 704 x 128
        for axis, spread in ((1, 0.5), (0, 0.25)):
            measured = np.log(np.sqrt((matrix.astype(np.float64) ** 2).mean(axis))).std()
            self.assertAlmostEqual(measured, spread, delta=0.2 * spread)
        everything = np.concatenate([v.ravel() for name, (_, v) in tensors.items() if "experts" in name])
        self.assertAlmostEqual(np.sqrt((everything.astype(np.float64) ** 2).mean()), 0.02, delta=0.0006)
        self.assertAlmostEqual(tensors["model.layers.1.mlp.gate.weight"][1].std(), 0.02, delta=0.001)  # no spread

    def test_tokenizer_covers_every_byte_and_id(self):
        _, config = self.make("a", "--shape", "olmoe", "--tokenizer")
        with open(os.path.join(self.root, "a", "tokenizer.json"), encoding="utf-8") as f:
            tokens = json.load(f)
        vocab = tokens["model"]["vocab"]
        self.assertEqual(sorted(vocab.values()), list(range(300)))
        letters = [key for key in vocab if len(key) == 1]
        self.assertEqual(len(letters), 256)
        self.assertEqual(vocab["Ġ"] - vocab["A"], 0x20 - 0x41)  # a space is not printable, so it has a letter of its own
        self.assertIn(config["eos_token_id"], [token["id"] for token in tokens["added_tokens"]])
        status, said = self.run_tool("b", "--shape", "olmoe", "--tokenizer", "--vocab-size", "200", "--layers", "1")
        self.assertEqual((status, os.path.exists(os.path.join(self.root, "b"))), (1, False))
        self.assertIn("--vocab-size", said)

    def test_refusals_leave_everything_as_it_was(self):
        os.mkdir(os.path.join(self.root, "a"))
        words = ("--shape", "olmoe", "--scale-down", "16", "--layers", "1", "--vocab-size", "300")
        self.assertEqual(self.run_tool("a", *words)[0], 1)
        self.assertEqual(self.run_tool("b", "--shape", "olmoe", "--scale-down", "7")[0], 1)
        self.assertEqual(self.run_tool("b", "--shape", "olmoe", "--scale-down", "128")[0], 1)
        with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=1000)):
            status, said = self.run_tool("b", *words)
        self.assertEqual(status, 1)
        self.assertIn("are free", said)
        for wrong in (("--layers", "0"), ("--std", "nan"), ("--row-spread", "-1"), ("--shape", "gpt"), ("--seed", "-1")):
            with self.assertRaises(SystemExit) as stop:
                self.run_tool("b", *words, *wrong)
            self.assertEqual(stop.exception.code, 2)
        self.assertEqual((os.listdir(self.root), os.listdir(os.path.join(self.root, "a"))), (["a"], []))

    def test_a_failing_write_leaves_nothing(self):
        real, calls = os.pwrite, []

        def full_after_a_while(fd, data, at):
            calls.append(at)
            if len(calls) > 20:
                raise OSError(28, "No space left on device")
            return real(fd, data[:1000], at)  # and short writes before

        with mock.patch("os.pwrite", full_after_a_while):
            status, said = self.run_tool("a", "--shape", "olmoe", "--scale-down", "16", "--layers", "1")
        self.assertEqual((status, os.listdir(self.root)), (1, []))
        self.assertIn("No space left", said)

    def test_what_a_killed_run_left_is_removed(self):
        partial = os.path.join(self.root, "a.partial")
        os.mkdir(partial)
        with open(os.path.join(partial, "model-00001-of-00009.safetensors"), "wb") as f:
            f.write(b"half")
        self.make("a", "--shape", "olmoe")
        self.assertEqual(os.listdir(self.root), ["a"])
        self.assertNotIn("model-00001-of-00009.safetensors", os.listdir(os.path.join(self.root, "a")))


if __name__ == "__main__":
    result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(
        unittest.defaultTestLoader.loadTestsFromTestCase(MakeCheckpoint))
    n_failed = len(result.failures) + len(result.errors)
    print(f"[  PASSED  ] {result.testsRun - n_failed} test(s).")
    if n_failed:
        print(f"[  FAILED  ] {n_failed} test(s).")
    sys.exit(1 if n_failed else 0)

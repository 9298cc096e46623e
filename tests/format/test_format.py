"""test_format.py MOEBIUS REPOSITORY: the second decoder (decoder.py) against the program, the golden folders and the page.

Exit status 77: skipped, numpy or xxhash is missing.
"""

import os
import re
import struct
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy as np
    import xxhash
except ImportError as error:
    print(f"skipped: {error} (Debian: python3-numpy, python3-xxhash)")
    sys.exit(77)

import decoder
import plain

PROGRAM, REPOSITORY = (os.path.abspath(path) for path in sys.argv[1:3])
HERE = os.path.dirname(os.path.abspath(__file__))
CHECKPOINTS = os.path.join(REPOSITORY, "tests", "model", "data", "checkpoints")


def run(*words):
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False)


def run_well(*words):
    ran = run(*words)
    if ran.returncode != 0:
        raise AssertionError(f"{words}: exit status {ran.returncode}: {ran.stderr}")


def read_plain(folder):
    """{name: (type name, shape, bytes)} of an ordinary checkpoint, in any number of files."""
    result = {}
    for file in sorted(os.listdir(folder)):
        if file.endswith(".safetensors"):
            _, tensors = decoder.read_safetensors(os.path.join(folder, file), is_coded=False)
            result |= {name: (type_name, shape, raw) for name, type_name, shape, raw in tensors}
    return result


# ---------------------------------------------------------------- the page's example


def page_block(kind):
    with open(os.path.join(REPOSITORY, "docs", "format.md"), encoding="utf-8") as file:
        (block,) = re.findall(rf"^```{kind}\n(.*?)^```", file.read(), re.MULTILINE | re.DOTALL)
    return block


def page_example(kind="hex"):
    lines = [line.split() for line in page_block(kind).splitlines()]
    blob = b"".join(bytes.fromhex("".join(line[1:])) for line in lines)
    assert [int(line[0], 16) for line in lines] == list(range(0, len(blob), 16))
    return blob


class PageTest(unittest.TestCase):
    def test_example(self):
        blob = page_example()
        self.assertEqual(len(blob), 111)
        ((name, entry, weights),) = decoder.decode_blob(blob + bytes(3985))
        expected = np.array([line.split() for line in page_block("weights").splitlines()], np.float32)
        self.assertEqual(weights.tobytes(), expected.tobytes())
        self.assertEqual((name, entry["eps"], entry["type"], weights.shape), ("weight", 0.25, 2, (3, 5)))
        q = np.array([line.split() for line in page_block("q").splitlines()], np.float32)
        q_weights = np.float32(entry["step"]) * q
        q_weights[2, 1] = 100
        self.assertEqual(weights.tobytes(), q_weights.tobytes())

    def test_example_of_version_2(self):
        blob = page_example("hex2")
        self.assertEqual(len(blob), 102)
        ((name, entry, weights),) = decoder.decode_blob(blob + bytes(3994))
        read = lambda kind: np.array([line.split() for line in page_block(kind).splitlines()], np.float32)
        self.assertEqual(weights.tobytes(), read("weights2").tobytes())
        self.assertEqual((name, entry["eps"], entry["step"], weights.shape), ("weight", 0.25, 0.25, (2, 4)))
        self.assertEqual(weights.tobytes(), (np.float32(entry["step"]) * read("q2")).tobytes())
        self.assertEqual(np.abs(weights - read("original2")).max(), 0.25)

    def test_example_of_version_3(self):
        blob = page_example("hex3")
        self.assertEqual(len(blob), 114)
        ((name, entry, weights),) = decoder.decode_blob(blob + bytes(3982))
        read = lambda kind: np.array([line.split() for line in page_block(kind).splitlines()], np.float32)
        exponents = read("exponents3")[0]
        self.assertEqual(entry["exponents"].tolist(), exponents.tolist())
        self.assertEqual(weights.tobytes(), read("weights3").tobytes())
        self.assertEqual((name, entry["eps"], entry["step"]), ("down_proj.weight", 0.25, 0.25))
        self.assertEqual(weights.tobytes(), (np.float32(0.25) * read("q3") * np.float32(2) ** -exponents).tobytes())
        self.assertTrue((np.abs(weights - read("original3")) <= 0.25 * 2**-exponents).all())


# ---------------------------------------------------------------- golden folders


class GoldenTest(unittest.TestCase):
    def test_version_1(self):
        self.check_golden("golden-v1")

    def test_version_2(self):
        self.check_golden("golden-v2")

    def test_version_3(self):
        self.check_golden("golden-v3")
        run_well("verify", os.path.join(HERE, "golden-v3"))

    def check_golden(self, golden):
        tensors = decoder.read_folder(os.path.join(HERE, golden))
        found = {}
        for name, tensor in tensors.items():
            rows, cols = tensor.shape if tensor.values is not None else (0, 0)
            found[name] = f"{tensor.xxh3()} {rows} {cols} {name}"
        with open(os.path.join(HERE, golden + ".xxh3"), encoding="utf-8") as file:
            self.assertEqual(file.read().splitlines(), [found[name] for name in sorted(found)])


# ---------------------------------------------------------------- agreement with the program

RUNS = [
    ("varied", plain.VARIED_OPTIONS),
    ("varied", ["--bound", "3%", "--dense-bound", "100%", "--tensor-bound", "embed=30%"]),
    ("varied", ["--bound", "range:0.01", "--dense-bound", "abs:0.3"]),
    ("odd", ["--tensor-bound", ".*=7%"]),
    ("odd", ["--tensor-bound", ".*=abs:0.01"]),
    ("odd", ["--bound", "abs:0", "--dense-bound", "30%"]),
    ("dense-layers", []),
    ("groups", ["--bound", "200%", "--dense-bound", "2%"]),
    ("halves", ["--bound", "50%"]),
    ("halves", ["--bound", "abs:0.00001", "--dense-bound", "range:0.002"]),
    ("q-lora", ["--bound", "10%", "--tensor-bound", "q_[ab]_proj=0", "--tensor-bound", "up_proj=0"]),
    ("shapes", ["--bound", "5%", "--dense-bound", "20%", "--tensor-bound", "embed_tokens=4%"]),
    ("shared", ["--bound", "0", "--dense-bound", "1%"]),
    ("yarn", ["--bound", "1000%", "--dense-bound", "0"]),
    ("yarn-5", ["--tensor-bound", "lm_head=0.01%"]),
    ("reference", []),
]


def input_folder(name, scratch):
    if name == "reference":
        return os.path.join(REPOSITORY, "models", "reference")
    if name not in ("varied", "odd"):
        return os.path.join(CHECKPOINTS, name)
    folder = os.path.join(scratch, "plain")
    plain.write_checkpoint(folder, plain.varied_tensors() if name == "varied" else plain.odd_tensors())
    return folder


class AgreementTest(unittest.TestCase):
    kinds = set()

    def check_tensor(self, tensor, original, back):
        """Bit for bit what the program decompresses, and within the bound by our own subtraction."""
        type_name, shape, raw = original
        self.assertEqual((tensor.type_name, tensor.shape), (type_name, shape))
        self.assertEqual(back[1], shape)
        if tensor.values is None:
            self.assertTrue(back[0] == type_name and tensor.raw == raw == back[2])
            return
        self.assertTrue(back[0] == "F32" and tensor.values.tobytes() == back[2])
        weights = decoder.to_float32(decoder.FLOAT_TYPES[type_name], raw).reshape(shape).astype(np.float64)
        self.assertTrue((np.abs(weights - tensor.values.astype(np.float64)) <= tensor.bounds).all())

    def check_run(self, name, options):
        with tempfile.TemporaryDirectory() as scratch:
            folder, small, back = input_folder(name, scratch), os.path.join(scratch, "coded"), os.path.join(scratch, "back")
            run_well("compress", folder, small, *options)
            run_well("decompress", small, back)
            tensors, originals, decompressed = decoder.read_folder(small), read_plain(folder), read_plain(back)
        self.assertEqual(set(tensors), set(originals))
        self.assertEqual(set(tensors), set(decompressed))
        for tensor_name, tensor in tensors.items():
            with self.subTest(tensor=tensor_name):
                self.check_tensor(tensor, originals[tensor_name], decompressed[tensor_name])
            AgreementTest.kinds |= {(kind & 127, n_outliers > 0) for kind, _, n_outliers in tensor.kinds}
        return sum(tensor.values is not None for tensor in tensors.values())

    def test_1_runs(self):
        n_coded = 0
        for name, options in RUNS:
            with self.subTest(checkpoint=name, options=options):
                n_coded += self.check_run(name, options)
        self.assertGreater(n_coded, 300)

    def test_2_every_kind_was_met(self):
        """All pairs of widths but (1, 0), which the encoder has no use for; raw; outliers of a = 0, a = 4 and others."""
        wanted = {9 * a + b for a, b in plain.legal_widths()} - {9} | {decoder.RAW}
        self.assertEqual(wanted, {kind for kind, _ in self.kinds})
        self.assertTrue({(0, True), (36, True), (39, True), (72, True)} <= self.kinds)


# ---------------------------------------------------------------- damage


def seal(blob):
    """The blob with both checksums made right."""
    header_nbytes, nbytes = struct.unpack_from("<I", blob, 8)[0], struct.unpack_from("<Q", blob, 16)[0]
    blob = bytearray(blob)
    blob[24:32] = xxhash.xxh3_64_intdigest(bytes(blob[header_nbytes:nbytes])).to_bytes(8, "little")
    blob[32:40] = bytes(8)
    blob[32:40] = xxhash.xxh3_64_intdigest(bytes(blob[:header_nbytes])).to_bytes(8, "little")
    return bytes(blob)


# Changes of the page's example: what, at, new bytes, whether checksums are made right, words of the message.
BLOB_DAMAGE = [
    ("another magic", 0, b"MOEC", True, "byte 0: not a Moebius blob"),
    ("a later version", 4, b"\4", True, "format version 4"),
    ("version 0", 4, b"\0", True, "format version 0"),
    ("no matrix", 6, b"\0", True, "byte 6"),
    ("more matrices than the header holds", 6, b"\2", True, "byte 8"),
    ("a header that is no multiple of 8", 8, b"\x61", False, "byte 8"),
    ("a header behind the file", 8, b"\0\0\1", False, "byte 8"),
    ("a reserved field", 12, b"\1", True, "byte 12"),
    ("a blob behind its tensor", 16, b"\1\x10", False, "byte 16"),
    ("a blob without its last byte", 16, b"\x6e", True, "reaches past the blob's end"),
    ("a blob with a byte too many", 16, b"\x70", True, "bytes after the last matrix"),
    ("the payload's checksum", 24, b"\0", False, "header's checksum"),
    ("the header's checksum", 32, b"\0", False, "header's checksum"),
    ("no rows", 40, b"\0", True, "byte 40: matrix 0"),
    ("more rows than records", 40, b"\xff\xff\xff\xff\xff\xff\xff", True, "byte 40: matrix 0"),
    ("no columns", 48, b"\0", True, "byte 40: matrix 0"),
    ("65536 columns", 48, b"\0\0\1", True, "byte 40: matrix 0"),
    ("an unknown element type", 52, b"\3", True, "byte 40: matrix 0"),
    ("an unknown form", 53, b"\2", True, "byte 40: matrix 0"),
    ("a name of no bytes", 54, b"\0", True, "no usable name"),
    ("a name longer than the header", 54, b"\x09", True, "no usable name"),
    ("a negative bound", 63, b"\xbf", True, "byte 40: matrix 0"),
    ("a bound that is not finite", 62, b"\xf0\x7f", True, "byte 40: matrix 0"),
    ("another step", 64, b"\xfe", True, "byte 40: matrix 0"),
    ("a step of -0", 64, b"\0\0\0\x80", True, "byte 40: matrix 0"),
    ("the entry's reserved field", 68, b"\1", True, "byte 40: matrix 0"),
    ("records one byte shorter", 72, b"\x09", True, "bytes after the last matrix"),
    ("a directory behind the blob", 86, b"\xff", True, "reaches past the blob's end"),
    ("a name with a line break", 88, b"\n", True, "no usable name"),
    ("padding of the header", 95, b"\1", True, "names do not fill the header"),
    ("a weight", 96, b"\x88", False, "payload's checksum"),
    ("an escape too many in the body", 96, b"\x8b", True, "number of escapes"),
    ("an unused bit of the body", 99, b"\x6e", True, "unused bits"),
    ("an unused bit of the tail", 101, b"\x80", True, "unused bits"),
    ("an outlier behind the group", 102, b"\x0f", True, "outlier positions"),
    ("an outlier whose code is not that of 0", 102, b"\1", True, "an outlier's code"),
    ("an outlier that is not finite", 104, b"\x80\x7f", True, "not finite"),
    ("kind 82", 106, bytes([128 + 82]), True, "kind byte without meaning"),
    ("a = 0 with a tail", 106, bytes([128 + 3]), True, "kind byte without meaning"),
    ("widths that reach too far", 106, bytes([128 + 9 * 8 + 1]), True, "kind byte without meaning"),
    ("b = 8", 106, bytes([128 + 9 * 2 + 8]), True, "kind byte without meaning"),
    ("no flag of outliers", 106, bytes([21]), True, "bytes after the last row group"),
    ("a raw group with escapes", 106, bytes([81]), True, "a raw group with escapes"),
    ("escapes without a tail", 106, bytes([128 + 18]), True, "escapes without a tail"),
    ("another number of escapes", 107, b"\2", True, "number of escapes"),
    ("no outliers in spite of the flag", 109, b"\0", True, "none of them"),
    ("more outliers than the record holds", 109, b"\2", True, "record reaches past"),
    ("padding behind the blob", 4095, b"\1", False, "padding after the blob is not zero"),
]

LAYER0, REST = "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"


def replaced(old, new):
    def change(content):
        assert content.count(old) == 1 and len(old) == len(new), old
        return content.replace(old, new)

    return change


def twice(content):
    """The header's first tensor once more, in the place of spaces."""
    n = int.from_bytes(content[:8], "little")
    text = content[8 : 8 + n].rstrip()
    entry = re.search(rb'"lm_head.moebius":\{.*?\}', text).group()
    return content[:8] + (text[:-1] + b"," + entry + b"}").ljust(n) + content[8 + n :]


# Changes of files of the golden folder: what, file, function from bytes to bytes, words of the message.
FILE_DAMAGE = [
    ("the folder's version", "config.json", replaced(b'"format_version": 1', b'"format_version": 4'), "format version 4"),
    ("another method", "config.json", replaced(b'"moebius"', b'"moebiuz"'), "moebiuz"),
    ("config.json cut", "config.json", lambda content: content[:-2], "config.json"),
    ("a shard without its end", LAYER0, lambda content: content[:-1], "truncated"),
    ("a shard cut at a page", LAYER0, lambda content: content[:8192], "truncated"),
    ("a shard cut in its header", LAYER0, lambda content: content[:100], "impossible header"),
    ("an empty shard", LAYER0, lambda content: b"", LAYER0),
    ("bytes behind the last tensor", LAYER0, lambda content: content + b"\0", "after the last tensor"),
    ("an exact tensor", REST, lambda content: content[:-1] + bytes([content[-1] ^ 1]), "checksum does not match"),
    ("a checksum's key", REST, replaced(b"xxh3:model.embed", b"xxh4:model.embed"), "no checksum"),
    ("an unknown dtype", REST, replaced(b'"F32"', b'"F33"'), "dtype"),
    ("a shape that is not the data's", REST, replaced(b'"shape":[10,7]', b'"shape":[10,8]'), "do not hold its shape"),
    ("a negative number", REST, replaced(b'"shape":[10,7]', b'"shape":[-1,7]'), "shape"),
    ("a tensor twice", REST, twice, "duplicate"),
    ("a tensor that the index lacks", "model.safetensors.index.json", replaced(b"lm_head", b"lm_tail"), "lm_tail"),
    ("no index", "model.safetensors.index.json", lambda content: b"{}", "no weight_map"),
]  # fmt: skip


class DamageTest(unittest.TestCase):
    def check_refused(self, folder, words):
        ran = run("verify", folder)
        self.assertEqual((ran.returncode, ran.stderr.count("\n")), (3, 1), ran.stderr)
        self.assertIn(words, ran.stderr)
        with self.assertRaises(decoder.FormatError):
            decoder.read_folder(folder)

    def write_example(self, folder, blob):
        os.makedirs(folder, exist_ok=True)
        header = b'{"lm_head.moebius":{"dtype":"U8","shape":[4096],"data_offsets":[0,4096]}}'.ljust(4088)
        with open(os.path.join(folder, "model.safetensors"), "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header + blob.ljust(4096, b"\0"))
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
            file.write('{"quantization_config": {"quant_method": "moebius", "format_version": 1}}')

    def test_blobs(self):
        sound = page_example().ljust(4096, b"\0")
        self.assertEqual(seal(sound), sound)
        with tempfile.TemporaryDirectory() as folder:
            self.write_example(folder, sound)
            run_well("verify", folder)
            decoder.read_folder(folder)
            for what, at, new, is_sealed, words in BLOB_DAMAGE:
                with self.subTest(what):
                    blob = sound[:at] + new + sound[at + len(new) :]
                    self.assertNotEqual(blob, sound)
                    self.write_example(folder, seal(blob) if is_sealed else blob)
                    self.check_refused(folder, words)

    def test_files(self):
        golden = os.path.join(HERE, "golden-v1")
        for what, name, change, words in FILE_DAMAGE:
            with self.subTest(what), tempfile.TemporaryDirectory() as folder:
                for file in os.listdir(golden):
                    with open(os.path.join(golden, file), "rb") as source:
                        content = source.read()
                    with open(os.path.join(folder, file), "wb") as copy:
                        copy.write(change(content) if file == name else content)
                self.check_refused(folder, words)

    def test_files_beside_the_weights(self):
        """What no blob and no exact tensor shows: only the checksums of files tell."""
        with tempfile.TemporaryDirectory() as scratch:
            original, coded = os.path.join(scratch, "plain"), os.path.join(scratch, "coded")
            plain.write_checkpoint(original, plain.varied_tensors())
            with open(os.path.join(original, "tokenizer_config.json"), "w", encoding="utf-8") as file:
                file.write('{"add_bos_token": true}')
            run_well("compress", original, coded)
            for name, old, new in (
                ("config.json", b"deepseek_v3", b"deepseek_v2"),
                ("config.json", b'"bound": "', b'"bounc": "'),
                ("config.json", b"files_xxh3", b"filet_xxh3"),
                ("config.json", b"config_xxh3", b"config_xxh4"),
                ("tokenizer_config.json", b"true", b"null"),
                ("model.safetensors.index.json", b"total_size", b"total_sise"),
                (LAYER0, b'"format":"pt"', b'"format":"tf"'),
            ):
                with self.subTest(name, old=old), open(os.path.join(coded, name), "r+b") as file:
                    content = file.read()
                    for text in (replaced(old, new)(content), content):
                        file.seek(0)
                        file.write(text)
                        file.flush()
                        if text != content:
                            self.check_refused(coded, name)
            run_well("verify", coded)
            decoder.read_folder(coded)

    def test_a_missing_shard(self):
        with tempfile.TemporaryDirectory() as folder:
            for file in ("config.json", "model.safetensors.index.json", LAYER0):
                with open(os.path.join(HERE, "golden-v1", file), "rb") as source:
                    content = source.read()
                with open(os.path.join(folder, file), "wb") as copy:
                    copy.write(content)
            self.check_refused(folder, "model-00002-of-00003.safetensors")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)

"""inspect and compress --dry-run on header-only checkpoints of the published models: numbers of parameters and sizes.

    test_published.py PROGRAM

data/published.json is tools/goldens/published.py's.  Exit status 77 without numpy.  The last line is cmocka's.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(REPO, "tools", "synthetic"))
try:
    import make_checkpoint
except ImportError:
    print("skipped: this python3 has no numpy (Debian: python3-numpy)")
    sys.exit(77)
import shapes  # noqa: E402

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "published.json"), encoding="utf-8") as f:
    GOLDEN = json.load(f)


class Published(unittest.TestCase):
    def setUp(self):
        keep = tempfile.TemporaryDirectory()
        self.addCleanup(keep.cleanup)
        self.root = keep.name

    def make(self, shape, *words):
        path = os.path.join(self.root, shape)
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(make_checkpoint.main([path, "--shape", shape, "--headers-only", *words]), 0)
        return path

    def report(self, *words):
        ran = subprocess.run([PROGRAM, *words, "-o", "json"], capture_output=True, text=True)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        return json.loads(ran.stdout)

    def test_headers_take_no_disk(self):
        path = self.make("mixtral")
        self.assertLess(sum(os.stat(os.path.join(path, f)).st_blocks for f in os.listdir(path)), 8 << 10)

    def test_inspect_counts_all_parameters_and_the_active_ones(self):
        for shape, golden in GOLDEN.items():
            with self.subTest(shape):
                path = self.make(shape)
                found = self.report("inspect", path)
                self.assertEqual(found["parameters"], {key: golden[key] for key in ("all", "not_used", "active")})
                self.assertEqual(found["total"]["nbytes"], golden["nbytes"])
                files = [f for f in os.listdir(path) if f.endswith(".safetensors")]
                self.assertEqual(found["file_nbytes"], sum(os.path.getsize(os.path.join(path, f)) for f in files))

    def test_dry_run_sees_all_weights_and_bytes(self):
        for shape in GOLDEN:
            with self.subTest(shape):
                path = self.make(shape, "--layers", "4", "--scale-down", "4", "--vocab-size", "1000")
                whole = self.report("inspect", path)
                found = self.report("compress", path, os.path.join(self.root, "out"), "--dry-run", "-t", "2")
                with open(os.path.join(path, "config.json"), encoding="utf-8") as file:
                    config = json.load(file)
                last = f"model.layers.{config['num_hidden_layers']}."
                n_scales = sum(make_checkpoint.n_weights(t) for t in shapes.list_tensors(shape, config)
                               if t.kind == "scale" and t.name.startswith(last))  # copied with what is not used
                self.assertEqual(found["coded"]["n_weights"] + found["n_weights_exact"],
                                 whole["parameters"]["all"] + n_scales)
                self.assertEqual(found["in_nbytes"], whole["total"]["nbytes"])


if __name__ == "__main__":
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    result = unittest.main(verbosity=2, exit=False).result
    n_failed = len(result.failures) + len(result.errors)
    print(f"[  PASSED  ] {result.testsRun - n_failed} test(s).")
    if n_failed:
        print(f"[  FAILED  ] {n_failed} test(s).")
    sys.exit(n_failed > 0)

"""The models that bench/peers compares have the same weights, as llama.cpp and as the published folders spell them.

The last line is cmocka's, which tools/test.sh counts.
"""

import math
import os
import sys
import unittest

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(REPO, "bench", "peers"), os.path.join(REPO, "tools", "synthetic")]
import gguf_shapes  # noqa: E402
import shapes  # noqa: E402


class GgufShapes(unittest.TestCase):
    def test_every_shape_has_as_many_weights_as_the_published_one(self):
        for name, shape in gguf_shapes.SHAPES.items():
            for n_layers in (3, shape.n_layers):
                config = shapes.make_config(name, n_layers, 1000)
                published = sum(math.prod(t.shape) for t in shapes.list_tensors(name, config) if t.kind != "rotary")
                ours = sum(math.prod(t.shape) for t in gguf_shapes.list_tensors(shape, n_layers, 1000))
                self.assertEqual(ours, published, f"{name}, {n_layers} layers")

    def test_every_shape_has_the_published_sizes(self):
        for name, shape in gguf_shapes.SHAPES.items():
            config = shapes.make_config(name)
            self.assertEqual(shape.n_layers, config["num_hidden_layers"])
            self.assertEqual(shape.context, config["max_position_embeddings"])
            self.assertEqual(shape.n_used, config["num_experts_per_tok"])
            self.assertEqual(shape.norm_eps, config["rms_norm_eps"])
            self.assertEqual(shape.rope_base, config["rope_theta"])

    def test_no_tensor_is_named_twice(self):
        for name, shape in gguf_shapes.SHAPES.items():
            names = [t.name for t in gguf_shapes.list_tensors(shape, 3, 1000)]
            self.assertEqual(len(names), len(set(names)), name)


if __name__ == "__main__":
    result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(
        unittest.defaultTestLoader.loadTestsFromTestCase(GgufShapes))
    n_failed = len(result.failures) + len(result.errors)
    print(f"[  PASSED  ] {result.testsRun - n_failed} test(s).")
    if n_failed:
        print(f"[  FAILED  ] {n_failed} test(s).")
    sys.exit(1 if n_failed else 0)

"""check_feedback.py LIBRARY REPOSITORY [OUT]: feedback by libmoebius.so beside an independent one in numpy, which goes another way.

The library factors H = V V^T and feeds errors of weights; here rows of the Cholesky factor of the inverse of H spread what
is left of a column, in float64. Both choose levels within the bound. tr(E H E^T) has to agree, and to be half of plain
rounding's or less. Columns of down have factors: numpy rounds W f then, with the moments of x / f. Exit status 77: skipped, numpy or xxhash is missing.

With OUT it writes OUT/ and OUT.xxh3 in place of that: how tests/format/golden-v2 was made, once.
"""

import ctypes
import math
import os
import sys
import tempfile

try:
    import numpy as np
    import xxhash  # noqa: F401, the decoder needs it
except ImportError as error:
    print(f"skipped: {error} (Debian: python3-numpy, python3-xxhash)")
    sys.exit(77)

LIBRARY, REPOSITORY, *OUT = sys.argv[1:]
sys.path.insert(0, os.path.join(REPOSITORY, "tests", "format"))
import decoder  # noqa: E402
import plain  # noqa: E402

DAMPING = 0.01


# ---------------------------------------------------------------- the library


class Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("msg", ctypes.c_char * 1024)]


class Info(ctypes.Structure):
    _fields_ = [
        ("is_known", ctypes.c_bool), ("n_tokens", ctypes.c_uint64), ("sum_gates2", ctypes.c_double), ("input", ctypes.c_uint64),
    ]


FLOATS = ctypes.POINTER(ctypes.c_float)
GET = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(Info), FLOATS, ctypes.POINTER(Error)
)


class Source(ctypes.Structure):
    _fields_ = [("context", ctypes.c_void_p), ("hash", ctypes.c_uint64), ("get", GET)]


class FeedbackOptions(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("rho", ctypes.c_double), ("damping", ctypes.c_double), ("each", ctypes.c_void_p),
        ("each_ctx", ctypes.c_void_p), ("n_cols_max", ctypes.c_size_t), ("no_column_factors", ctypes.c_bool),
    ]


class Bound(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int), ("value", ctypes.c_double)]


class CompressOptions(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("has_bound", ctypes.c_bool), ("has_dense_bound", ctypes.c_bool), ("bound", Bound),
        ("dense_bound", Bound), ("tensor_bounds", ctypes.c_void_p), ("n_tensor_bounds", ctypes.c_size_t),
        ("dry_run", ctypes.c_bool), ("force", ctypes.c_bool), ("n_threads", ctypes.c_int), ("progress", ctypes.c_void_p),
        ("progress_ctx", ctypes.c_void_p), ("plan_path", ctypes.c_char_p), ("dense", ctypes.c_bool), ("rounder", ctypes.c_void_p),
    ]


def compress(library, folder, out, rho, bound, moments, no_column_factors=False):
    """A coded folder, rounded with the moments of each matrix, {name: float32 [n, n]}."""

    def get(_, tensor, n_cols, info, to, __):
        h = moments.get(tensor.decode())
        info[0] = Info(h is not None, 1000, 1000.0, xxhash.xxh3_64_intdigest(tensor))
        if h is not None and to:
            assert h.shape == (n_cols, n_cols)
            ctypes.memmove(to, h.ctypes.data, h.nbytes)
        return 0

    source, error = Source(None, 1, GET(get)), Error()
    options = FeedbackOptions(ctypes.sizeof(FeedbackOptions), rho, DAMPING, None, None, 0, no_column_factors)
    feedback = ctypes.c_void_p()
    report = ctypes.create_string_buffer(1 << 20)
    library.mb_feedback_rounder.restype = ctypes.c_void_p
    assert library.mb_feedback_create(ctypes.byref(source), ctypes.byref(options), ctypes.byref(feedback), ctypes.byref(error)) == 0
    how = CompressOptions(size=ctypes.sizeof(CompressOptions), has_bound=bound is not None, n_threads=2)
    how.bound = bound or Bound()
    how.rounder = library.mb_feedback_rounder(feedback)
    status = library.mb_compress(folder.encode(), out.encode(), ctypes.byref(how), report, ctypes.byref(error))
    assert status == 0, error.msg
    library.mb_feedback_free(feedback)


# ---------------------------------------------------------------- the same in numpy


def feed_back(w, h, step, rho):
    """Column by column: what is left of a column goes to later ones by the Cholesky factor of the inverse."""
    n = len(h)
    order = np.argsort(-np.diag(h), kind="stable")
    damped = h.astype(np.float64)[np.ix_(order, order)] + DAMPING * np.diag(h).mean() * np.eye(n)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    rest, original, q = w[:, order].copy(), w[:, order], np.zeros_like(w)
    for j in range(n):
        low, high = np.ceil(original[:, j] / step - rho), np.floor(original[:, j] / step + rho)
        z = np.minimum(np.maximum(np.rint(rest[:, j] / step), low), high)
        q[:, order[j]] = z
        rest[:, j:] -= np.outer((rest[:, j] - z * step) / upper[j, j], upper[j, j:])
    return q


def output_error(w, decoded, h):
    e = w - decoded
    return float(((e @ h) * e).sum())


def inputs(rng, n, n_tokens):
    """Inputs as layers have them: a few directions, channels of unequal size."""
    x = rng.standard_normal((n_tokens, 12)) @ rng.standard_normal((12, n)) * 0.5 + rng.standard_normal((n_tokens, n)) * 0.4
    return x * np.exp(0.8 * rng.standard_normal(n))


def random_moments(rng, n):
    x = inputs(rng, n, 4 * n)
    h = (x.T @ x).astype(np.float32)
    return np.ascontiguousarray((h + h.T) / 2)


def write_golden(out):
    """Blobs of both versions: k_proj, v_proj and lm_head have no moments."""
    rng = np.random.default_rng(2)
    tensors = {name: value for name, value in plain.varied_tensors().items() if "q_proj" not in name}
    moments = {
        name: random_moments(rng, values.shape[1])
        for name, (_, values) in tensors.items()
        if "experts" in name or "o_proj" in name or "b_proj" in name
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = os.path.join(scratch, "plain")
        plain.write_checkpoint(folder, tensors)
        compress(ctypes.CDLL(LIBRARY), folder, out, 1.0, None, moments, no_column_factors=True)
    with open(out + ".xxh3", "w", encoding="utf-8") as file:
        for name, tensor in sorted(decoder.read_folder(out).items()):
            rows, cols = tensor.shape if tensor.values is not None else (0, 0)
            file.write(f"{tensor.xxh3()} {rows} {cols} {name}\n")


def main():
    library = ctypes.CDLL(LIBRARY)
    rng = np.random.default_rng(14)
    tensors, moments = {}, {}
    for layer, expert in ((1, 0), (1, 1), (2, 0)):
        for name, rows, cols in (("gate_proj", 96, 200), ("up_proj", 96, 200), ("down_proj", 200, 96)):
            full = f"model.layers.{layer}.mlp.experts.{expert}.{name}.weight"
            tensors[full] = ("F32", (rng.standard_normal((rows, cols)) * 0.03).astype(np.float32))
            moments[full] = random_moments(rng, cols)
    for rho, share in ((0.75, 0.5), (1.0, 0.5), (2.0, 0.5)):
        with tempfile.TemporaryDirectory() as scratch:
            folder, out = os.path.join(scratch, "plain"), os.path.join(scratch, "coded")
            plain.write_checkpoint(folder, tensors)
            compress(library, folder, out, rho, Bound(2, 0.02 * rho), moments)
            coded = decoder.read_folder(out)
        ours = theirs = nearest = 0.0
        for name, (_, original) in tensors.items():
            w, h, eps = original.astype(np.float64), moments[name].astype(np.float64), coded[name].eps
            step = eps / rho
            factors = eps / coded[name].bounds * np.ones(w.shape[1])
            assert (np.abs(w - coded[name].values) <= coded[name].bounds).all()
            assert math.isclose(eps, 0.02 * rho) and math.isclose(np.log2(factors).sum(), 0, abs_tol=1e-9)
            assert (factors != 1).any() == ("down_proj" in name)
            ours += output_error(w, coded[name].values, h)
            theirs += output_error(w, feed_back(w * factors, h / np.outer(factors, factors), step, rho) * step / factors, h)
            nearest += output_error(w, np.rint(w / step) * step, h)
        print(f"rho {rho}: tr(E H E^T) of plain rounding x {ours / nearest:.4f}, in numpy x {theirs / nearest:.4f}")
        assert abs(ours / theirs - 1) < 0.02
        assert ours <= share * nearest


if OUT:
    write_golden(OUT[0])
else:
    main()

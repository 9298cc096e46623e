"""A second decoder of coded folders, written from docs/format.md alone. numpy and xxhash; nothing shared with the C code.

Slow and plain on purpose. Every "must" of the page is checked; FormatError says which one is broken.
"""

import json
import math
import os
import re
import struct

import numpy as np
import xxhash

RAW = 81
ELEMENT_NBYTES = {0: 4, 1: 2, 2: 2}
TYPE_NAMES = {0: "F32", 1: "F16", 2: "BF16"}
N_WEIGHTS_MAX = 2**44
BLOB_HEADER_NBYTES_MAX = 2**24


class FormatError(Exception):
    pass


def need(condition, what):
    if not condition:
        raise FormatError(what)


def to_float32(element_type, raw):
    """Original values as float32 (all three types fit exactly)."""
    if element_type == 0:
        return np.frombuffer(raw, "<f4").copy()
    if element_type == 1:
        return np.frombuffer(raw, "<f2").astype(np.float32)
    return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)


def step_of_eps(eps):
    """The largest float32 with step <= 2 eps (1 - 2^-16); 0 below the smallest float."""
    limit = 2 * eps * (1 - 2.0**-16)
    if limit < 2.0**-149:
        return 0.0
    largest = float(np.finfo(np.float32).max)
    if limit > largest:
        return largest
    step = np.float32(limit)
    return float(np.nextafter(step, np.float32(0)) if float(step) > limit else step)


def read_stream(raw, n_codes, width):
    """Codes of a bit stream: code i is bits [i w, (i+1) w), lowest bit first. Unused bits must be 0."""
    if n_codes == 0 or width == 0:
        need(len(raw) == 0, "a stream without codes has bytes")
        return np.zeros(n_codes, np.int64)
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
    need(not bits[n_codes * width :].any(), "unused bits are not 0")
    return bits[: n_codes * width].reshape(n_codes, width) @ (1 << np.arange(width, dtype=np.int64))


def read_nibbles(raw, n_codes):
    """Body codes of width 4: blocks of 128, low halves first."""
    codes = np.zeros(n_codes, np.int64)
    at = 0
    for begin in range(0, n_codes, 128):
        r = min(128, n_codes - begin)
        h = (r + 1) // 2
        block = np.frombuffer(raw, np.uint8, h, at).astype(np.int64)
        at += h
        codes[begin : begin + h] = block & 15
        codes[begin + h : begin + r] = (block >> 4)[: r - h]
        if r % 2 == 1:
            need(block[h - 1] >> 4 == 0, "unused bits are not 0")
    need(at == len(raw), "a body of nibbles has another length")
    return codes


def decode_group(record, kind, n_escapes, n_outliers, n, element_type, step):
    """The n weights of a group; the record must be used up exactly."""
    size = ELEMENT_NBYTES[element_type]
    if kind == RAW:
        need(n_escapes == 0, "a raw group has escapes")
        need(len(record) == n * size, "a raw group has another length")
        values = to_float32(element_type, record)
        need(np.isfinite(values).all(), "a raw weight is not finite")
        return values
    a, b = divmod(kind & 127, 9)
    need(a <= 8 and b <= 8 and (a > 0 or b == 0), f"kind {kind} has no meaning")
    need(a == 0 or step != 0, "codes of weights, but the step is 0")
    m = 2 ** (a - 1) - 1 if a > 0 else 0
    t_half = 2 ** (b - 1) if b > 0 else 0
    need(m + t_half <= 127, f"kind {kind} reaches too far")
    need(b > 0 or n_escapes == 0, "escapes without a tail")
    body_nbytes = (n * a + 7) // 8 if a != 4 else sum((min(128, n - i) + 1) // 2 for i in range(0, n, 128))
    need(body_nbytes == (n * a + 7) // 8, "the two statements of a body's length differ")
    tail_nbytes = (n_escapes * b + 7) // 8
    need(len(record) == body_nbytes + tail_nbytes + n_outliers * (2 + size), "a record has another length")
    body, rest = record[:body_nbytes], record[body_nbytes:]
    codes = read_nibbles(body, n) if a == 4 else read_stream(body, n, a)
    tail, rest = read_stream(rest[:tail_nbytes], n_escapes, b), rest[tail_nbytes:]
    places = np.frombuffer(rest[: 2 * n_outliers], "<u2").astype(np.int64)
    values = to_float32(element_type, rest[2 * n_outliers :])

    q = np.zeros(n, np.int64)
    if a > 0:
        need((codes <= 2 * m + 1).all(), "a body code has no meaning")
        escapes = codes == 2 * m + 1
        need(escapes.sum() == n_escapes, "another number of escapes in the body")
        q = codes - m
        q[escapes] = np.where(tail < t_half, -(m + 1 + tail), m + 1 + (tail - t_half))
    with np.errstate(over="ignore"):
        weights = np.float32(step) * q.astype(np.float32)
    need(np.isfinite(weights).all(), "a code stands for an infinite weight")
    if n_outliers:
        need((np.diff(places) > 0).all() and places[-1] < n, "outlier positions do not increase inside the group")
        need((q[places] == 0).all(), "an outlier's body code is not that of 0")
        need(np.isfinite(values).all(), "an outlier is not finite")
        weights[places] = values
    return weights


def group_rows(n_cols):
    return 1 if n_cols >= 1024 else -(-1024 // n_cols)


def decode_matrix(entry, records, directory):
    """float32 [rows, columns]."""
    rows, cols = entry["rows"], entry["cols"]
    step_rows = group_rows(cols)
    n_groups = -(-rows // step_rows)
    need(len(directory) >= 3 * n_groups, "a directory is too short")
    kinds = directory[:n_groups]
    escapes = struct.unpack_from(f"<{n_groups}H", directory, n_groups)
    flagged = [i for i, kind in enumerate(kinds) if kind & 128]
    need(len(directory) == 3 * n_groups + 2 * len(flagged), "a directory has another length")
    outliers = dict(zip(flagged, struct.unpack_from(f"<{len(flagged)}H", directory, 3 * n_groups)))
    need(all(outliers.values()), "a flagged group has no outliers")

    entry["kinds"] = list(zip(kinds, escapes, [outliers.get(i, 0) for i in range(n_groups)]))
    size = ELEMENT_NBYTES[entry["type"]]
    parts, at = [], 0
    for i, kind in enumerate(kinds):
        n = (min(rows, (i + 1) * step_rows) - i * step_rows) * cols
        n_outliers = outliers.get(i, 0)
        if kind == RAW:
            nbytes = n * size
        else:
            a, b = divmod(kind & 127, 9)
            nbytes = (n * a + 7) // 8 + (escapes[i] * b + 7) // 8 + n_outliers * (2 + size)
        need(at + nbytes <= len(records), "records end early")
        parts.append(
            decode_group(records[at : at + nbytes], kind, escapes[i], n_outliers, n, entry["type"], entry["step"])
        )
        at += nbytes
    need(at == len(records), "records are longer than their groups")
    return np.concatenate(parts).reshape(rows, cols)


def unscaled(weights, exponents):
    """v' 2^-e of each column."""
    need(len(exponents) == weights.shape[1], "a blob without its last exponents")
    need((np.abs(exponents.astype(np.int64)) <= 15).all() and exponents.any(), "impossible exponents")
    with np.errstate(over="ignore"):
        weights = weights * np.ldexp(np.float32(1), -exponents.astype(np.int32))
    need(weights.dtype == np.float32 and np.isfinite(weights).all(), "a weight is infinite")
    return weights


def is_name(name):
    return len(name) > 0 and not any(byte < 0x20 or byte == 0x7F for byte in name)


def is_step(eps, step, version):
    """That of eps; since version 2 also a finer one, of which the bound is four at most."""
    most = step_of_eps(eps)
    if struct.pack("<f", step) == struct.pack("<f", most):
        return True
    return version >= 2 and 0 < step < most and eps <= 4 * step


def read_entry(blob, i, version):
    at = 40 + 48 * i
    rows, cols, element_type, form, name_nbytes = struct.unpack_from("<QIBBH", blob, at)
    eps, step, n_exponents, data_nbytes, directory_nbytes = struct.unpack_from("<dfIQQ", blob, at + 16)
    need(rows >= 1 and 1 <= cols <= 65535, "a matrix has an impossible shape")
    need(element_type in ELEMENT_NBYTES and form == 1 and name_nbytes >= 1, "an entry is not of these versions")
    need(rows * cols <= N_WEIGHTS_MAX, "a matrix has too many weights")
    need(math.isfinite(eps) and math.copysign(1, eps) > 0, "an impossible bound")
    need(is_step(eps, step, version), "a step that does not go with its eps")
    need(n_exponents == 0 or (version == 3 and n_exponents == cols), "exponents for another number of columns")
    need(n_exponents == 0 or step == 0 or 2.0**-100 <= step <= 2.0**100, "a step that does not go with exponents")
    return {
        "rows": rows, "cols": cols, "type": element_type, "name_nbytes": name_nbytes, "eps": eps, "step": step,
        "data_nbytes": data_nbytes, "directory_nbytes": directory_nbytes,
        "n_exponents": n_exponents,
    }


def decode_blob(blob):
    """[(name, entry, float32 weights)] of a blob; bytes behind its end (padding) must be 0."""
    need(len(blob) >= 40 and blob[:4] == b"MOEB", "no blob")
    version, n_matrices, header_nbytes, zero, nbytes, payload_sum, header_sum = struct.unpack_from("<HHIIQQQ", blob, 4)
    need(version in (1, 2, 3), f"version {version}")
    need(n_matrices >= 1 and zero == 0 and header_nbytes % 8 == 0, "an impossible header")
    need(40 + 48 * n_matrices <= header_nbytes <= nbytes <= len(blob), "sizes do not fit")
    need(header_nbytes <= BLOB_HEADER_NBYTES_MAX, "a header too large")
    need(not any(blob[nbytes:]), "padding is not 0")
    bare = blob[:32] + bytes(8) + blob[40:header_nbytes]
    need(xxhash.xxh3_64_intdigest(bare) == header_sum, "the header's checksum differs")
    need(xxhash.xxh3_64_intdigest(blob[header_nbytes:nbytes]) == payload_sum, "the payload's checksum differs")

    entries = [read_entry(blob, i, version) for i in range(n_matrices)]
    at = 40 + 48 * n_matrices
    for entry in entries:
        name = blob[at : at + entry["name_nbytes"]]
        need(len(name) == entry["name_nbytes"] and is_name(name), "a name with control characters")
        entry["name"] = name.decode("utf-8", "surrogateescape")
        at += entry["name_nbytes"]
    need(len({entry["name"] for entry in entries}) == n_matrices, "a name twice")
    need(at <= header_nbytes and header_nbytes - at < 8 and not any(blob[at:header_nbytes]), "names do not fill the header")

    at, result = header_nbytes, []
    for entry in entries:
        records = blob[at : at + entry["data_nbytes"]]
        at += entry["data_nbytes"]
        directory = blob[at : at + entry["directory_nbytes"]]
        at += entry["directory_nbytes"]
        exponents = np.frombuffer(blob[at : at + entry["n_exponents"]], np.int8)
        at += entry["n_exponents"]
        weights = decode_matrix(entry, records, directory)
        if entry["n_exponents"]:
            weights = unscaled(weights, exponents)
        entry["exponents"] = exponents if entry["n_exponents"] else np.zeros(entry["cols"], np.int8)
        result.append((entry["name"], entry, weights))
    need(at == nbytes, "the payload has another length")
    return result


# ---------------------------------------------------------------- the folder

PAGE = 4096
ELEMENT_SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8,
}
FLOAT_TYPES = {name: number for number, name in TYPE_NAMES.items()}


class Tensor:
    """A tensor by its original name. 'values': float32 of a coded one; 'raw': the bytes of an exact one."""

    def __init__(self, type_name, shape, raw=None, values=None, entry=None):
        self.type_name, self.shape, self.raw, self.values = type_name, shape, raw, values
        self.eps, self.kinds = (entry["eps"], entry["kinds"]) if entry else (0, [])
        self.bounds = self.eps * 2.0 ** -entry["exponents"].astype(float) if entry else 0  # of each column

    def xxh3(self):
        """Of the decoded float32 values, or of the exact bytes."""
        return xxhash.xxh3_64_hexdigest(self.raw if self.values is None else self.values.astype("<f4").tobytes())


def no_duplicates(pairs):
    need(len({key for key, _ in pairs}) == len(pairs), "a key twice")
    return dict(pairs)


def read_json(text):
    try:
        value = json.loads(text, object_pairs_hook=no_duplicates)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"JSON: {error}") from None
    need(isinstance(value, dict), "JSON: not an object")
    return value


def is_size(value):
    return type(value) is int and 0 <= value < 2**63


def read_tensor_entry(name, entry):
    """(begin, end, type name, shape), the places in the data section."""
    need(is_name(name.encode("utf-8", "surrogatepass")) and len(name.encode()) <= 512, "a tensor's name")
    need(isinstance(entry, dict) and set(entry) == {"dtype", "shape", "data_offsets"}, f"{name}: its members")
    shape, offsets, type_name = entry["shape"], entry["data_offsets"], entry["dtype"]
    need(type_name in ELEMENT_SIZES, f"{name}: dtype")
    need(isinstance(shape, list) and len(shape) <= 8 and all(map(is_size, shape)), f"{name}: shape")
    need(isinstance(offsets, list) and len(offsets) == 2 and all(map(is_size, offsets)), f"{name}: data_offsets")
    need(offsets[1] - offsets[0] == math.prod(shape) * ELEMENT_SIZES[type_name], f"{name}: data_offsets and shape")
    return offsets[0], offsets[1], type_name, shape


def read_safetensors(path, is_coded=True):
    """(metadata, [(name, type name, shape, bytes)] in the order of the file). Only coded files keep to pages."""
    with open(path, "rb") as file:
        content = file.read()
    need(len(content) >= 8, "a file without a header")
    header_nbytes = struct.unpack_from("<Q", content)[0]
    need(2 <= header_nbytes <= min(100_000_000, len(content) - 8), "an impossible header size")
    need(not is_coded or (8 + header_nbytes) % PAGE == 0, "the data section does not begin at a page")
    text = content[8 : 8 + header_nbytes]
    need(text[:1] == b"{", "the header does not begin with {")
    header, data = read_json(text), content[8 + header_nbytes :]
    metadata = header.pop("__metadata__", {})
    need(isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values()), "__metadata__")
    places = sorted((*read_tensor_entry(name, entry), name) for name, entry in header.items())
    at, tensors = 0, []
    for begin, end, type_name, shape, name in places:
        need(begin == at, f"{name}: an overlap or a hole")
        need(end <= len(data), f"{name}: truncated")
        tensors.append((name, type_name, shape, data[begin:end]))
        at = end
    need(at == len(data), "bytes behind the last tensor")
    return metadata, tensors


def read_blob_tensor(name, shape, raw):
    """{original name: Tensor} of a blob."""
    need(len(shape) == 1 and len(raw) % PAGE == 0, f"{name}: not whole pages")
    stem, result = name[: -len("moebius")], {}
    for inner, entry, weights in decode_blob(raw):
        need(not entry["exponents"].any() or re.search(r"\.(down_proj|w2)\.weight$", stem + inner), f"{name}: exponents")
        result[stem + inner] = Tensor(TYPE_NAMES[entry["type"]], list(weights.shape), values=weights, entry=entry)
    return result


def read_shard(path):
    metadata, stored = read_safetensors(path)
    result, exact_seen, at = {}, False, 0
    for name, type_name, shape, raw in stored:
        if name.endswith(".moebius") and type_name == "U8":
            need(not exact_seen and at % PAGE == 0, f"{name}: a blob behind an exact tensor")
            found = read_blob_tensor(name, shape, raw)
        else:
            exact_seen = True
            need(metadata.get("xxh3:" + name) == xxhash.xxh3_64_hexdigest(raw), f"{name}: the checksum differs")
            found = {name: Tensor(type_name, shape, raw=raw)}
        at += len(raw)
        need(not result.keys() & found.keys(), f"{name}: a name twice")
        result.update(found)
    return result, [name for name, *_ in stored]


def read_file(folder, name):
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return file.read()
    except OSError as error:
        raise FormatError(str(error)) from None


def shard_names(folder):
    """{file: names of stored tensors that the index says it has}, or None for one file without an index."""
    if os.path.exists(os.path.join(folder, "model.safetensors")):
        return {"model.safetensors": None}
    weight_map = read_json(read_file(folder, "model.safetensors.index.json")).get("weight_map")
    need(isinstance(weight_map, dict) and weight_map, "no weight_map")
    shards = {}
    for tensor, name in weight_map.items():
        need(isinstance(name, str) and name == os.path.basename(name), f"{tensor}: not a file name")
        shards.setdefault(name, set()).add(tensor)
    return shards


def check_files(folder, config_text, quantization):
    """Checksums of files, where the folder has them."""
    own, files = quantization.get("config_xxh3"), quantization.get("files_xxh3")
    if own is None and files is None:
        return
    need(isinstance(own, str) and re.fullmatch("[0-9a-f]{32}", own), "config_xxh3")
    bare = config_text.replace(own.encode(), b"0" * 32)
    need(xxhash.xxh3_128_hexdigest(bare) == own, "config.json: the checksum differs")
    need(isinstance(files, dict), "files_xxh3")
    for name, expected in files.items():
        need(name == os.path.basename(name), f"{name}: not a file name")
        content = read_file(folder, name)
        if name.endswith(".safetensors"):
            need(len(content) >= 8, f"{name}: a file without a header")
            content = content[8 : 8 + struct.unpack_from("<Q", content)[0]]
        need(xxhash.xxh3_128_hexdigest(content) == expected, f"{name}: the checksum differs")


def read_folder(folder):
    """{original name: Tensor} of a coded folder."""
    config_text = read_file(folder, "config.json")
    quantization = read_json(config_text).get("quantization_config")
    need(isinstance(quantization, dict) and quantization.get("quant_method") == "moebius", "not a coded folder")
    need(quantization.get("format_version") in (1, 2, 3), f"format version {quantization.get('format_version')}")
    check_files(folder, config_text, quantization)
    result = {}
    for name, expected in sorted(shard_names(folder).items()):
        path = os.path.join(folder, name)
        need(os.path.isfile(path), f"{name}: missing")
        found, stored = read_shard(path)
        need(expected is None or set(stored) == expected, f"{name}: the index names other tensors")
        need(not result.keys() & found.keys(), f"{name}: a name that another file has")
        result.update(found)
    return result

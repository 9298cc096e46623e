#!/usr/bin/env python3
"""borders.py - the rules of docs/architecture.md that a compiler does not check: borders.py BUILD_FOLDER

- a part includes its own headers, base's ("base/x.h"), the public ones ("moebius/x.h") and those of LENT, and no path
  with "..";
- what is for one processor alone is in folders of its name (x86, arm);
- no circles: neither among headers, nor among the files of a part (a file needs another when it uses a name that the
  other defines, as nm reports of the objects in the build folder).
"""
import collections
import pathlib
import re
import subprocess
import sys

REPO = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<(moebius/[^>]+)>)', re.M)
ONLY = {
    "x86": re.compile(r"#\s*include\s+<(?:immintrin|cpuid|x86intrin)\.h>|__builtin_ia32_|\b_mm\d*_"),
    "arm": re.compile(r"#\s*include\s+<(?:arm_neon|arm_acle|asm/hwcap|sys/auxv)\.h>|__builtin_(?:neon|aarch64)_"
                      r"|\bv(?:ld|st)1q?_[a-z]\d+\b"),
}
LENT = {"src/tokenizer": ["src/jinja/include"]}  # chat templates are Jinja
BUILT = {"report_page.h", "default_text.h", "commit.h", "moebius/version.h"}  # headers that the build writes


def sources():
    for folder in ("include", "src", "cli"):
        for path in sorted((REPO / folder).rglob("*.[ch]")):
            yield path


def part_of(path):
    parts = path.relative_to(REPO).parts
    return "/".join(parts[:2]) if parts[0] == "src" else parts[0]


def find_header(path, name):
    """The file that an include means, or None for one outside the rules."""
    own = REPO / part_of(path)
    places = [path.parent, own, *sorted(p for p in own.rglob("*") if p.is_dir()), REPO / "include",
              REPO / "src/base/include", *(REPO / lent for lent in LENT.get(part_of(path), ()))]
    for place in places:
        if (place / name).is_file():
            return (place / name).resolve()
    return None


def check_includes(complain):
    needs = {}
    for path in sources():
        text = path.read_text()
        shown = path.relative_to(REPO)
        for folder, only in ONLY.items():
            if only.search(text) and folder not in path.parts:
                complain(f"{shown}: {folder} code outside a folder named {folder}")
        needs[path] = set()
        for quoted, public in INCLUDE.findall(text):
            name = quoted or public
            if ".." in pathlib.PurePath(name).parts:
                complain(f"{shown}: includes \"{name}\": paths with .. cross borders")
                continue
            header = None if name in BUILT else find_header(path, name)
            if header is None and name not in BUILT:
                complain(f"{shown}: includes \"{name}\", which is neither its part's, base's nor public")
            if header is not None:
                needs[path].add(header)
        if part_of(path) == "include" and any(part_of(h) != "include" for h in needs[path]):
            complain(f"{shown}: a public header includes a private one")
    headers = {p: {h for h in n if h.suffix == ".h"} for p, n in needs.items() if p.suffix == ".h"}
    for circle in circles(headers):
        complain("headers include each other: " + ", ".join(str(p.relative_to(REPO)) for p in circle))


def circles(needs):
    """Sets of nodes that reach each other (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(needs.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    sys.setrecursionlimit(10000)
    for node in sorted(needs):
        if node not in index:
            visit(node)
    return found


def source_of(build, line_name):
    """build/src/base/CMakeFiles/mb_base.dir/x86/cpu.c.o -> src/base/x86/cpu.c"""
    path = pathlib.Path(line_name).relative_to(build).as_posix().removesuffix(".o")
    return re.sub(r"/CMakeFiles/[^/]+", "", path)


def check_symbols(build, complain):
    objects = [o for folder in ("src", "cli") for o in sorted((build / folder).rglob("*.c.o"))]
    if not objects:
        sys.exit(f"borders.py: {build}: no objects: build first")
    lines = subprocess.run(["nm", "-A", *objects], check=True, capture_output=True, text=True).stdout.splitlines()
    defined, used = {}, collections.defaultdict(set)
    for line in lines:
        match = re.match(r"(.*\.o):\s*(?:[0-9a-f]+)?\s+([A-Za-z])\s+(\S+)$", line)
        if match is None:
            continue
        name, kind, symbol = match.groups()
        source = source_of(build, name)
        if not (REPO / source).exists():
            continue  # left from a file that is gone
        if kind == "U":
            used[source].add(symbol)
        elif kind.isupper():
            defined[symbol] = source
    needs = {source: {defined[n] for n in names if n in defined} - {source} for source, names in used.items()}
    for circle in circles(needs):
        complain("files need each other: " + ", ".join(circle))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    complaints = []
    check_includes(complaints.append)
    check_symbols(pathlib.Path(sys.argv[1]), complaints.append)
    print("\n".join(complaints) or "no border crossed, no circles")
    sys.exit(1 if complaints else 0)


main()

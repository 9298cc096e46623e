#!/usr/bin/env python3
"""The tool tools/timeline_idle.py: idle time goes to what thread 0 does, and only after the passes that do not count."""

import json
import os
import subprocess
import sys
import tempfile

TOOL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools/timeline_idle.py")


def event(category, tid, begin, end, layer=None):
    args = {} if layer is None else {"layer": layer}
    return {"ph": "X", "pid": 1, "tid": tid, "cat": category, "ts": begin, "dur": end - begin, "name": category, "args": args}


def one_pass(at):
    """10 ms: 2 of attention, 6 of experts (1 of them a wait while a check runs), 2 of logits; reads from 3 to 6 ms."""
    us = at * 1000
    return [event("pass", 0, us, us + 8000), event("attention", 0, us, us + 2000, 1), event("experts", 0, us + 2000, us + 8000, 1),
            event("product", 0, us + 2000, us + 6000, 1), event("wait", 0, us + 6000, us + 7000, 1),
            event("product", 0, us + 7000, us + 8000, 1), event("product", 1, us + 2000, us + 8000, 1),
            event("logits", 0, us + 8000, us + 10000), event("read", 1000, us + 3000, us + 5000, 1),
            event("read", 1001, us + 4000, us + 6000, 1), event("check", 2000, us + 6000, us + 7000, 1)]


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "time.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"traceEvents": [e for i in range(4) for e in one_pass(10 * i)]}, f)
        ran = subprocess.run([sys.executable, "-B", TOOL, path, "--skip", "2", "--layers"], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        lines = ran.stdout.splitlines()
        assert lines[0] == "2 passes of 10.00 ms; disk busy 30.0 %", lines[0]
        rows = {line[:36].strip(): line[36:].split()[:2] for line in lines[2:] if not line.startswith("  ")}
        assert rows == {"attention": ["2.00", "2.00"], "experts: product": ["5.00", "2.00"], "logits": ["2.00", "2.00"],
                        "experts: wait for a check": ["1.00", "1.00"]}, rows
        assert "  attention in layer 1: 2.00 ms a pass" in lines, lines
        ran = subprocess.run([sys.executable, "-B", TOOL, path, "--skip", "4"], capture_output=True, text=True)
        assert ran.returncode == 1 and "4 passes" in ran.stderr, ran


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Time programs that may use less memory than their model needs, taking turns, and print one table with ratios.

    python3 bench/peers/stream.py --memory BYTES [--evict PATH]... [--rounds N] NAME=COMMAND NAME=COMMAND...

A COMMAND prints llama-bench's JSON (its last sample counts) or writes a CSV to {csv} with a row for every token and its
'wall_ms' (the second half counts): caches are then as generation leaves them.  A round starts every program once, every
second round goes backwards.  Each runs in a memory control group of its own, a child of this process's (needs root; cgroup
v1, or v2 where the group may have children), which pages of mapped files count in.  Before each run the files in all --evict
leave the page cache.  Bytes are what the kernel says that the process had read from disks while the counted tokens were
made, as it was looked at twenty times a second.  Without --memory there is no limit.
"""

import argparse
import bisect
import contextlib
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from compare import commands_of

POLL_SECONDS = 0.05
SMALL_NBYTES = 1 << 18  # what a program reads between two looks without reading weights
# Files of a group: processes, limit, most ever used; cgroup v1, then v2.
GROUP_FILES = (("cgroup.procs", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
               ("cgroup.procs", "memory.max", "memory.peak"))


def options(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", nargs="+", metavar="NAME=COMMAND", help="the first is what the others are compared with")
    parser.add_argument("--memory", type=int, metavar="BYTES", help="what each program and its page cache may use")
    parser.add_argument("--evict", action="append", default=[], metavar="PATH", help="file or folder of a model; may be given again")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--seconds", type=float, default=300, metavar="S", help="a run that lasts longer is ended (default 300)")
    args = parser.parse_args(argv)
    args.commands = commands_of(parser, args.programs)
    return args


# ---------------------------------------------------------------- one run


def evict(paths):
    for path in paths:
        files = [os.path.join(path, name) for name in os.listdir(path)] if os.path.isdir(path) else [path]
        for name in filter(os.path.isfile, files):
            fd = os.open(name, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def own_group():
    """The folder of this process's memory group."""
    with open("/proc/self/cgroup", encoding="ascii") as f:
        groups = [line.rstrip("\n").split(":", 2) for line in f]
    for _, controllers, path in groups:
        if "memory" in controllers.split(","):
            return "/sys/fs/cgroup/memory" + path
    return next("/sys/fs/cgroup" + path for number, _, path in groups if number == "0")


class Group:
    """A group with a limit; None is no limit."""

    def __init__(self, nbytes):
        self.folder = None
        if nbytes is None:
            return
        self.folder = os.path.join(own_group(), f"moebius-stream-{os.getpid()}")
        os.mkdir(self.folder)
        try:
            self.files = next(files for files in GROUP_FILES if os.path.exists(os.path.join(self.folder, files[1])))
            self.write(1, nbytes)
        except (OSError, StopIteration):
            self.close()
            raise

    def write(self, which, value):
        with open(os.path.join(self.folder, self.files[which]), "w", encoding="ascii") as f:
            f.write(str(value))

    def enter(self):
        """In the child, before the program."""
        if self.folder is not None:
            self.write(0, os.getpid())

    def peak_nbytes(self):
        if self.folder is None:
            return 0
        with open(os.path.join(self.folder, self.files[2]), encoding="ascii") as f:
            return int(f.read())

    def close(self):
        if self.folder is not None:
            os.rmdir(self.folder)


def read_nbytes(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/io", encoding="ascii") as f:
        for line in f:
            if line.startswith("read_bytes:"):
                return int(line.split()[1])
    return 0


def watch(process, seconds):
    """Until the program ends: times, and bytes read until then; its resources."""
    times, reads, begun = [], [], time.monotonic()
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return times, reads, usage
        now = read_nbytes(process.pid)
        times.append(time.monotonic())
        reads.append(max(now, reads[-1] if reads else 0))
        if times[-1] - begun > seconds:
            process.kill()
        time.sleep(POLL_SECONDS)


def nbytes_of_last(times, reads, seconds):
    """Read in the seconds before the last weights were read."""
    if not reads:
        return 0
    end = len(reads) - 1
    while end > 0 and reads[end] - reads[end - 1] < SMALL_NBYTES:
        end -= 1
    begin = max(bisect.bisect_left(times, times[end] - seconds), 0)
    return reads[end] - reads[begin]


def counted(output, csv_path):
    """Tokens and seconds that count; None where the program said neither."""
    if os.path.exists(csv_path):
        with open(csv_path, encoding="utf-8") as f:
            rows = list(csv.DictReader(line for line in f if not line.startswith("#")))
        rows = rows[len(rows) // 2:]
        return (len(rows), sum(float(row["wall_ms"]) for row in rows) / 1e3) if rows else None
    lines = output.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("[")), len(lines))
    try:
        row = json.loads("\n".join(lines[first:]))[-1]
    except (json.JSONDecodeError, IndexError):
        return None
    return row["n_gen"], row["n_gen"] / row["samples_ts"][-1]


def run_program(command, args):
    evict(args.evict)
    group = Group(args.memory)
    try:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as words:
            csv_path = os.path.join(folder, "csv")
            command = [word.replace("{csv}", csv_path) for word in command]
            # pylint: disable=subprocess-popen-preexec-fn  # one thread
            process = subprocess.Popen(command, stdout=out, stderr=words, preexec_fn=group.enter)
            times, reads, usage = watch(process, args.seconds)
            out.seek(0)
            words.seek(0)
            tokens = counted(out.read(), csv_path) if process.returncode == 0 else None
            if tokens is None:
                return {"failure": f"exit status {process.returncode}", "words": words.read()[-600:]}
        n, seconds = tokens
        return {"speed": n / seconds, "read_nbytes": nbytes_of_last(times, reads, seconds) / n, "seconds": seconds,
                "n": n, "peak_nbytes": group.peak_nbytes(), "resident_nbytes": usage.ru_maxrss * 1024}
    finally:
        group.close()


def measure(args):
    runs = {name: [] for name in args.commands}
    for number in range(args.rounds):
        order = list(args.commands)
        for name in order if number % 2 == 0 else reversed(order):
            run = run_program(args.commands[name], args)
            runs[name].append(run)
            what = (f"{run['failure']}\n{run['words']}" if "failure" in run else
                    f"{run['speed']:.2f} t/s, {run['read_nbytes'] / 1e6:.0f} MB read a token")
            print(f"round {number + 1}, {name}: {what}", file=sys.stderr, flush=True)
    return runs


# ---------------------------------------------------------------- the table


def span(values, digits):
    text = f"{statistics.median(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(runs):
    first = next(iter(runs))
    lines = [["program", "rounds", "t/s", f"{first} is x times", "MB read a token", "GB/s read", "peak of the group, GB"],
             ["---"] + ["--:"] * 6]
    for name, mine in runs.items():
        done = [run for run in mine if "failure" not in run]
        if not done:
            lines.append([name, "0", mine[-1]["failure"], "", "", "", ""])
            continue
        ratios = [ours["speed"] / run["speed"] for ours, run in zip(runs[first], mine) if "speed" in ours and "speed" in run]
        lines.append([name, str(len(done)), span([run["speed"] for run in done], 2),
                      "" if name == first or not ratios else span(ratios, 2),
                      span([run["read_nbytes"] / 1e6 for run in done], 0),
                      span([run["read_nbytes"] * run["speed"] / 1e9 for run in done], 2),
                      f"{max(run['peak_nbytes'] for run in done) / 1e9:.2f}"])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main(argv=None):
    args = options(argv)
    try:
        runs = measure(args)
    except (OSError, StopIteration) as error:
        print(f"stream: {error or 'no group with a limit of memory can be made here'}", file=sys.stderr)
        return 1
    print(table(runs))
    return 0 if any("speed" in run for mine in runs.values() for run in mine) else 1


if __name__ == "__main__":
    sys.exit(main())

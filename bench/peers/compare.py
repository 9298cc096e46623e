#!/usr/bin/env python3
"""Time programs that print llama-bench's JSON, taking turns, and print one table with ratios.

    python3 bench/peers/compare.py [options] NAME=COMMAND NAME=COMMAND ...

-p, -n, -t, -r and -o json (and -d, if given) are put after each COMMAND, so it is `llama-bench -m FILE` or
`moebius bench FOLDER`, with `env NAME=VALUE` before it where needed.  A round starts every program once for each number of threads; every second round goes
backwards.  Speed is the median of all samples.  A ratio is the first program's speed over this one's, the median of the rounds'
ratios, their range in brackets.  Memory is the largest that the kernel saw resident (anonymous: looked at ten times a second).

What other processes and other guests of the machine used meanwhile is taken from /proc/stat.  A run beside which that
was more than --max-foreign cores is thrown away and done again, twice at most.

--samples FILE keeps every run, one JSON object a line, and counts those that are there already: many short
sittings make one table.  `--rounds 0 --samples FILE` only prints it.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

POLL_SECONDS = 0.1
N_ATTEMPTS = 3


def commands_of(parser, texts):
    """NAME=COMMAND texts as a dict, in their order."""
    commands = {}
    for text in texts:
        name, equals, command = text.partition("=")
        if not equals or not name or not command or name in commands:
            parser.error(f"'{text}' is not NAME=COMMAND with a name of its own")
        commands[name] = shlex.split(command)
    return commands


def options(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", nargs="*", metavar="NAME=COMMAND", help="the first is what the others are compared with")
    parser.add_argument("-p", "--n-prompt", type=int, default=512, metavar="N", help="tokens of the prompt; 0: no such test")
    parser.add_argument("-n", "--n-gen", type=int, default=128, metavar="N", help="generated tokens; 0: no such test")
    parser.add_argument("-d", "--n-depth", type=int, default=0, metavar="N", help="tokens before a test begins (default 0)")
    parser.add_argument("-t", "--threads", default="1,2", metavar="N,...", help="default 1,2")
    parser.add_argument("-r", "--repetitions", type=int, default=2, metavar="N", help="samples of a run (default 2)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--seconds", type=float, default=float("inf"), metavar="S",
                        help="begin no round that would last beyond this, judged by the last one")
    parser.add_argument("--max-foreign", type=float, default=0.05, metavar="CORES", help="default 0.05")
    parser.add_argument("--samples", metavar="FILE", help="keep every run here, and count those that are here")
    args = parser.parse_args(argv)
    args.threads = [int(n) for n in args.threads.split(",")]
    args.commands = commands_of(parser, args.programs)
    if args.rounds > 0 and not args.commands:
        parser.error("no programs")
    return args


# ---------------------------------------------------------------- one run


def busy_seconds():
    """Of all CPUs since the start, without idle and waiting for disks; with what the host gave to others."""
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system, _idle, _wait, irq, softirq, stolen = map(int, f.readline().split()[1:9])
    return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def anonymous_nbytes(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
            for line in f:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except ProcessLookupError:
        pass
    return 0


def rows_of(output):
    """llama-bench's rows; some programs print words before them."""
    lines = output.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("[")), len(lines))
    try:
        return json.loads("\n".join(lines[first:]))
    except json.JSONDecodeError:
        return []


def test_name(row):
    depth = f" @ d{row['n_depth']}" if row.get("n_depth") else ""
    return (f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}") + depth


def run_program(name, command, n_threads, args):
    command = command + ["-p", str(args.n_prompt), "-n", str(args.n_gen), "-t", str(n_threads),
                         "-r", str(args.repetitions), "-o", "json"] + (["-d", str(args.n_depth)] if args.n_depth else [])
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as words:
        begun, busy, own = time.monotonic(), busy_seconds(), own_seconds()
        try:
            process = subprocess.Popen(command, stdout=out, stderr=words)
        except OSError as error:
            sys.exit(f"compare: {name}: {error}")
        anonymous = 0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            anonymous = max(anonymous, anonymous_nbytes(process.pid))
            time.sleep(POLL_SECONDS)
        process.returncode = os.waitstatus_to_exitcode(status)
        elapsed = time.monotonic() - begun
        foreign = (busy_seconds() - busy - (own_seconds() - own)) / elapsed
        out.seek(0)
        words.seek(0)
        rows = rows_of(out.read())
        if process.returncode != 0 or not rows:
            sys.exit(f"compare: {name}: {shlex.join(command)}: exit status {process.returncode}\n{words.read()[-2000:]}")
    return {"program": name, "commit": rows[0]["build_commit"], "cpu": rows[0]["cpu_info"], "n_threads": n_threads,
            "samples": {test_name(row): row["samples_ts"] for row in rows}, "peak_nbytes": usage.ru_maxrss * 1024,
            "anonymous_nbytes": anonymous, "foreign_cores": max(foreign, 0.0), "seconds": elapsed}


def run_undisturbed(name, command, n_threads, args):
    for _ in range(N_ATTEMPTS):
        run = run_program(name, command, n_threads, args)
        speeds = ", ".join(f"{test} {statistics.median(t_s):.1f} t/s" for test, t_s in run["samples"].items())
        print(f"{name}, {n_threads} threads: {speeds}; {run['foreign_cores']:.2f} cores used by others", file=sys.stderr,
              flush=True)
        if run["foreign_cores"] <= args.max_foreign:
            return run
    return None


def measure(args, runs):
    """Adds rounds to 'runs'; a run that was always disturbed is missing from its round."""
    begun, first = time.monotonic(), 1 + max((run["round"] for run in runs), default=0)
    last_seconds = 0.0
    for number in range(first, first + args.rounds):
        round_begun = time.monotonic()
        if round_begun - begun + last_seconds > args.seconds:
            return
        order = [(name, n) for n in args.threads for name in args.commands]
        for name, n_threads in order if number % 2 else reversed(order):
            run = run_undisturbed(name, args.commands[name], n_threads, args)
            if run is None:
                continue
            run["round"] = number
            if any(old["program"] == name and old["commit"] != run["commit"] for old in runs):
                sys.exit(f"compare: {args.samples} holds runs of {name} at another commit than {run['commit']}")
            runs.append(run)
            if args.samples:
                with open(args.samples, "a", encoding="utf-8") as f:
                    f.write(json.dumps(run) + "\n")
        last_seconds = time.monotonic() - round_begun


# ---------------------------------------------------------------- the table


def speed(runs, test):
    samples = [sample for run in runs for sample in run["samples"].get(test, [])]
    return statistics.median(samples) if samples else None


def ratios(ours, theirs, test):
    """Of rounds in which both ran undisturbed."""
    ours = {run["round"]: speed([run], test) for run in ours if test in run["samples"]}
    theirs = {run["round"]: speed([run], test) for run in theirs if test in run["samples"]}
    return sorted(ours[number] / theirs[number] for number in ours.keys() & theirs.keys())


def ratio_cell(values):
    if not values:
        return ""
    text = f"{statistics.median(values):.2f}"
    return text if len(values) == 1 else f"{text} ({values[0]:.2f} to {values[-1]:.2f})"


def table(runs, names):
    """'names' in the order wanted, the one to compare with first."""
    tests = list(dict.fromkeys(test for run in runs for test in run["samples"]))
    heads = ["program", "commit", "threads", "rounds"]
    heads += [head for test in tests for head in (f"{test}, t/s", f"{names[0]} is x times")]
    heads += ["peak memory, GB", "anonymous, GB", f"{names[0]} needs x of it"]
    lines = [heads, ["---"] * 2 + ["--:"] * (len(heads) - 2)]
    for n_threads in sorted({run["n_threads"] for run in runs}):
        group = {name: [run for run in runs if run["program"] == name and run["n_threads"] == n_threads] for name in names}
        for name, mine in group.items():
            if not mine:
                continue
            cells = [name, ", ".join(dict.fromkeys(run["commit"] for run in mine)), str(n_threads), str(len(mine))]
            for test in tests:
                value = speed(mine, test)
                cells += ["" if value is None else f"{value:.1f}",
                          "" if name == names[0] else ratio_cell(ratios(group[names[0]], mine, test))]
            peak = max(run["peak_nbytes"] for run in mine)
            ours = max((run["peak_nbytes"] for run in group[names[0]]), default=0)
            cells += [f"{peak / 1e9:.2f}", f"{max(run['anonymous_nbytes'] for run in mine) / 1e9:.2f}",
                      "" if name == names[0] or not ours else f"{ours / peak:.2f}"]
            lines.append(cells)
    foreign = [run["foreign_cores"] for run in runs]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + (
        f"\n\n{runs[0]['cpu']}; beside a run others used {statistics.median(foreign):.2f} cores (median), {max(foreign):.2f} at most")


def main(argv=None):
    args = options(argv)
    runs = []
    if args.samples and os.path.exists(args.samples):
        with open(args.samples, encoding="utf-8") as f:
            runs = [json.loads(line) for line in f]
    measure(args, runs)
    if not runs:
        print("compare: no undisturbed run", file=sys.stderr)
        return 1
    print(table(runs, list(dict.fromkeys([*args.commands, *(run["program"] for run in runs)]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())

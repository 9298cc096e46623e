"""bench/peers/compare.py against programs whose speed, memory and commit are known.

The last line is cmocka's, which tools/test.sh counts.
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
sys.path.insert(0, os.path.join(REPO, "bench", "peers"))
import compare  # noqa: E402

# A program that answers as llama-bench does: PROGRAM LOG COMMIT T/S MEGABYTES [-p N -n N -t N -r N -o json -d N].
FAKE = """
import json, sys, time
log, commit, speed, megabytes = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
given = dict(zip(sys.argv[5::2], sys.argv[6::2]))
with open(log, "a") as f:
    f.write(commit + " " + given["-t"] + "\\n")
held = b"x" * (megabytes * 1000000)
time.sleep(0.3)
rows = [{"build_commit": commit, "cpu_info": "a CPU", "n_prompt": p, "n_gen": n, "n_depth": int(given.get("-d", 0)),
         "samples_ts": [speed * int(given["-t"]) * (10 if p else 1)] * int(given["-r"])}
        for p, n in ((int(given["-p"]), 0), (0, int(given["-n"])))]
print("words before the rows")
print(json.dumps(rows, indent=1) if given["-o"] == "json" else "no json asked for")
"""


class Compare(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.log, self.samples = (os.path.join(self.folder.name, name) for name in ("log", "samples"))
        self.script = os.path.join(self.folder.name, "fake.py")
        with open(self.script, "w", encoding="ascii") as f:
            f.write(FAKE)

    def program(self, commit, speed, megabytes):
        return f"{sys.executable} {self.script} {self.log} {commit} {speed} {megabytes}"

    def compare(self, *argv):
        """Exit status, cells of the table's rows, everything that was said."""
        out, words = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(words):
            try:
                status = compare.main(list(argv))
            except SystemExit as stop:
                status = stop.code
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.getvalue().splitlines()
                if line.startswith("|")]
        return status, rows[2:], out.getvalue() + words.getvalue()

    def test_a_table(self):
        status, rows, text = self.compare("ours=" + self.program("aaa", 30, 100), "theirs=" + self.program("bbb", 20, 200),
                                          "--rounds", "2", "--max-foreign", "1000", "-p", "64", "-n", "8")
        self.assertEqual(status, 0)
        self.assertIn("| pp64, t/s | ours is x times | tg8, t/s |", text)
        self.assertEqual([row[:8] for row in rows],
                         [["ours", "aaa", "1", "2", "300.0", "", "30.0", ""],
                          ["theirs", "bbb", "1", "2", "200.0", "1.50 (1.50 to 1.50)", "20.0", "1.50 (1.50 to 1.50)"],
                          ["ours", "aaa", "2", "2", "600.0", "", "60.0", ""],
                          ["theirs", "bbb", "2", "2", "400.0", "1.50 (1.50 to 1.50)", "40.0", "1.50 (1.50 to 1.50)"]])
        for row, megabytes in zip(rows, (100, 200, 100, 200)):
            peak, anonymous = float(row[8]), float(row[9])
            self.assertTrue(megabytes / 1000 <= peak < megabytes / 1000 + 0.09, row)
            self.assertTrue(megabytes / 1000 <= anonymous <= peak, row)
        self.assertAlmostEqual(float(rows[1][10]), float(rows[0][8]) / float(rows[1][8]), delta=0.06)

    def test_a_depth_is_handed_to_the_programs(self):
        _, _, text = self.compare("ours=" + self.program("aaa", 30, 0), "--rounds", "1", "--max-foreign", "1000", "-t", "1",
                                  "-p", "64", "-n", "8", "-d", "100")
        self.assertIn("| pp64 @ d100, t/s | ours is x times | tg8 @ d100, t/s |", text)

    def test_programs_take_turns_and_every_second_round_goes_backwards(self):
        self.compare("ours=" + self.program("aaa", 1, 0), "theirs=" + self.program("bbb", 1, 0), "--rounds", "2",
                     "--max-foreign", "1000", "-t", "1,2")
        with open(self.log, encoding="ascii") as f:
            self.assertEqual(f.read().splitlines(),
                             ["aaa 1", "bbb 1", "aaa 2", "bbb 2", "bbb 2", "aaa 2", "bbb 1", "aaa 1"])

    def test_a_disturbed_run_is_repeated_and_then_left_out(self):
        # Not waited for, so its time is not this process's own.
        spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            status, rows, text = self.compare("ours=" + self.program("aaa", 1, 0), "--rounds", "1", "--max-foreign", "0.05",
                                              "-t", "1", "--samples", self.samples)
        finally:
            spinner.kill()
            spinner.wait()
        self.assertEqual((status, rows), (1, []))
        self.assertIn("no undisturbed run", text)
        self.assertFalse(os.path.exists(self.samples))
        with open(self.log, encoding="ascii") as f:
            self.assertEqual(len(f.read().splitlines()), compare.N_ATTEMPTS)

    def test_samples_add_up_over_sittings(self):
        ours, theirs = "ours=" + self.program("aaa", 30, 0), "theirs=" + self.program("bbb", 20, 0)
        often = ["--max-foreign", "1000", "-t", "1", "--rounds", "1", "--samples", self.samples]
        self.compare(ours, theirs, *often)
        # Of rounds with 30 and 60 beside 20 and 20 the ratios are 1.5 and 3.
        status, rows, _ = self.compare(ours.replace(" 30 ", " 60 "), theirs, *often)
        self.assertEqual((status, rows[1][5]), (0, "2.25 (1.50 to 3.00)"))
        self.assertEqual(self.compare("--rounds", "0", "--samples", self.samples)[1], rows)
        with open(self.samples, encoding="utf-8") as f:
            self.assertEqual([json.loads(line)["round"] for line in f], [1, 1, 2, 2])

    def test_runs_of_two_commits_do_not_mix(self):
        often = ["--max-foreign", "1000", "-t", "1", "--rounds", "1", "--samples", self.samples]
        self.compare("ours=" + self.program("aaa", 1, 0), *often)
        status, _, _ = self.compare("ours=" + self.program("bbb", 1, 0), *often)
        self.assertIn("holds runs of ours at another commit than bbb", status)

    def test_a_program_that_fails_is_named(self):
        status, _, _ = self.compare(f"ours={sys.executable} -c 'import sys; sys.exit(\"no such model\")'", "-t", "1")
        self.assertIn("compare: ours: ", status)
        self.assertIn("exit status 1\nno such model", status)

    def test_a_round_that_would_last_too_long_is_not_begun(self):
        self.compare("ours=" + self.program("aaa", 1, 0), "--rounds", "9", "--seconds", "0.5", "--max-foreign", "1000",
                     "-t", "1")
        with open(self.log, encoding="ascii") as f:
            self.assertEqual(len(f.read().splitlines()), 1)


if __name__ == "__main__":
    result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(
        unittest.defaultTestLoader.loadTestsFromTestCase(Compare))
    n_failed = len(result.failures) + len(result.errors)
    print(f"[  PASSED  ] {result.testsRun - n_failed} test(s).")
    if n_failed:
        print(f"[  FAILED  ] {n_failed} test(s).")
    sys.exit(1 if n_failed else 0)

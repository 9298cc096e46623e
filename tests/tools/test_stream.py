"""bench/peers/stream.py against programs whose speed and reads are known.

The last line is cmocka's, which tools/test.sh counts.
"""

import contextlib
import io
import os
import sys
import tempfile
import unittest

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(REPO, "bench", "peers"))
import stream  # noqa: E402

JSON = """
import json, sys
print("words before the rows")
print(json.dumps([{"n_gen": 4, "samples_ts": [1, float(sys.argv[1])]}], indent=1))
"""
CSV = """
import sys
with open(sys.argv[1], "w") as f:
    f.write("# a note\\nstep,wall_ms\\n1,9000\\n2,9000\\n3,100\\n4,300\\n# summary tokens=4\\n")
"""


class Stream(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def program(self, name, text):
        path = os.path.join(self.folder.name, name)
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
        return f"{sys.executable} {path}"

    def stream(self, *argv):
        """Exit status, cells of the table's rows, what was said."""
        out, words = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(words):
            status = stream.main(list(argv))
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.getvalue().splitlines()]
        return status, rows[2:], words.getvalue()

    def test_the_last_sample_and_the_second_half_of_tokens_count(self):
        status, rows, words = self.stream("--rounds", "2", "ours=" + self.program("rows.py", JSON) + " 10",
                                          "theirs=" + self.program("tokens.py", CSV) + " {csv}")
        self.assertEqual(status, 0)
        self.assertEqual([row[:4] for row in rows], [["ours", "2", "10.00 (10.00 to 10.00)", ""],
                                                     ["theirs", "2", "5.00 (5.00 to 5.00)", "2.00 (2.00 to 2.00)"]])
        self.assertEqual([line.split(":")[0] for line in words.splitlines()],
                         ["round 1, ours", "round 1, theirs", "round 2, theirs", "round 2, ours"])

    def test_a_program_that_fails_is_told_and_the_others_go_on(self):
        failing = self.program("fails.py", "import sys; print('no room', file=sys.stderr); sys.exit(3)")
        status, rows, words = self.stream("--rounds", "1", "ours=" + self.program("rows.py", JSON) + " 10", f"bad={failing}")
        self.assertEqual((status, rows[1][:3]), (0, ["bad", "0", "exit status 3"]))
        self.assertIn("no room", words)

    def test_bytes_are_those_of_the_counted_time_before_the_last_read(self):
        times = [0, 1, 2, 3, 4, 5]
        reads = [0, 100 << 20, 110 << 20, 130 << 20, 130 << 20, (130 << 20) + 4096]
        self.assertEqual(stream.nbytes_of_last(times, reads, 1), 20 << 20)
        self.assertEqual(stream.nbytes_of_last(times, reads, 100), 130 << 20)
        self.assertEqual(stream.nbytes_of_last([], [], 1), 0)


if __name__ == "__main__":
    result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(
        unittest.defaultTestLoader.loadTestsFromTestCase(Stream))
    n_failed = len(result.failures) + len(result.errors)
    print(f"[  PASSED  ] {result.testsRun - n_failed} test(s).")
    if n_failed:
        print(f"[  FAILED  ] {n_failed} test(s).")
    sys.exit(1 if n_failed else 0)

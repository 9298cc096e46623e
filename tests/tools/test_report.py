"""A small sweep of the reference model, and its report in a browser: every section is drawn, and no script fails.

    test_report.py PROGRAM [SCREENSHOT.png]

Exit status 77 where Chromium (Debian: chromium) is not installed.  The last line is cmocka's.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODEL = os.path.join(REPO, "models", "reference")
TASK = os.path.join(MODEL, "eval.jsonl")
WILD = "</script><img src=x onerror=document.title='taken'>"
SECTIONS = ("layers", "experts", "bound", "rate", "format", "use", "shift", "runs", "repeat")


def sweep(program, folder):
    """Results with all that a page shows but the paper's tables."""
    plan = {
        "sweep": 1, "task": TASK, "limit": 4, "predict": 60, "text": TASK, "windows": 2,
        "runs": [
            {"label": WILD, "target": ["layer=1 experts=all", "layer=8 experts=all"], "error": ["normal"], "bound": ["80%", "200%"]},
            {"target": ["layer=8 expert=0", "layer=4 expert=3"], "error": "normal", "bound": "200%"},
            {"target": "layer=8 expert=0", "error": ["codec", "codec:nf4"], "bound": "80%"},
        ],
    }
    with open(os.path.join(folder, "sweep.json"), "w", encoding="utf-8") as file:
        json.dump(plan, file)
    results = os.path.join(folder, "results.db")
    subprocess.run([program, "sweep", MODEL, "--file", os.path.join(folder, "sweep.json"), "-o", results], check=True, stdout=subprocess.DEVNULL)
    page = os.path.join(folder, "report.html")
    subprocess.run([program, "report", results, "-o", page], check=True)
    return page


def browse(browser, page, folder, *options):
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile",
               "--enable-logging=stderr", "--virtual-time-budget=5000", *options, "file://" + page]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not errors, errors
    return done.stdout


def check(dom):
    for name in SECTIONS:
        assert f'<section id="{name}"' in dom, f"no section {name}"
    assert dom.count("<svg") >= 10, dom.count("<svg")
    assert "taken" not in re.search("<title>(.*?)</title>", dom).group(1)
    body = dom[dom.index("<main"):dom.index("</main>")]
    for word in ("NaN", "undefined", "[object", "Infinity"):
        assert word not in body, word
    assert "<img" not in body
    assert "Not in this file" not in body


def main():
    program = os.path.abspath(sys.argv[1])
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print("skipped: no Chromium (Debian: chromium)")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        page = sweep(program, folder)
        check(browse(browser, page, folder, "--dump-dom"))
        check(browse(browser, page, folder, "--dump-dom", "--window-size=400,800", "--blink-settings=preferredColorScheme=0"))
        if len(sys.argv) > 2:
            browse(browser, page, folder, "--window-size=1100,6000", "--screenshot=" + os.path.abspath(sys.argv[2]))
    print("[  PASSED  ] 1 test(s).")
    return 0


if __name__ == "__main__":
    sys.exit(main())

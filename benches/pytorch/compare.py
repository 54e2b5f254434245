"""Runs PyTorch and longcast in turn on the same cases and prints how they compare.

The two take turns within a round, and a ratio is taken within a round, so that a machine which
slows down or is busy for a while slows both.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
WHATS = ["step", "latency", "throughput"]
# Asked of another process: a program starts with the peak memory of the one that started it, as getrusage
# tells it, so this one has to stay small.
ABOUT_TORCH = """
import json, resource, torch
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"version": torch.__version__, "ru_maxrss": peak}))
"""


def fail(message):
    sys.exit(f"compare.py: {message}")


def listed(text, known, kind):
    """Splits at commas and refuses what is not known."""
    names = text.split(",")
    for name in names:
        if name not in known:
            fail(f"no {kind} is called {name!r}; there are {', '.join(known)}")
    return names


def measure(command, case, what, arguments):
    """One run of one side."""
    command = [*command, case, "--what", what, "--seconds", str(arguments.seconds), "--threads", str(arguments.threads)]
    environment = os.environ | {"MEASURE_STARTED": repr(time.time())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"`{shlex.join(command)}` ended with status {done.returncode}:\n{done.stderr}")
    try:
        result = json.loads(done.stdout)
        return {key: result[key] for key in ("median_ms", "best_ms", "runs", "peak_mb", "launch_ms")}
    except (ValueError, KeyError, TypeError) as error:
        fail(f"`{shlex.join(command)}` did not print the line of JSON that is expected ({error!r}):\n{done.stdout}")


def about_torch():
    """Version of torch, and what importing it takes by itself: a build with CUDA takes far more."""
    done = subprocess.run([sys.executable, "-c", ABOUT_TORCH], capture_output=True, text=True)
    if done.returncode != 0:
        fail(
            f"{sys.executable} cannot import torch:\n{done.stderr}"
            f"Install it with\n    {sys.executable} -m pip install -r {HERE / 'requirements.txt'}"
        )
    about = json.loads(done.stdout)
    peak_mb = about["ru_maxrss"] / (1024 * 1024 if sys.platform == "darwin" else 1024)
    return {"version": about["version"], "import_mb": round(peak_mb, 1)}


def compare(sides, case, what, arguments):
    """All rounds of one case."""
    runs = {side: [] for side in sides}
    for number in range(arguments.rounds):
        # Who goes first changes each round: the second finds a warmer machine.
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for side in order:
            runs[side].append(measure(sides[side], case, what, arguments))
        print(f"{case} {what}: round {number + 1} of {arguments.rounds}", file=sys.stderr)

    def middle(side, key):
        return median(run[key] for run in runs[side])

    def ratio(key):
        return median(theirs[key] / ours[key] for theirs, ours in zip(runs["pytorch"], runs["ours"]))

    return {
        "case": case,
        "what": what,
        "pytorch": {key: middle("pytorch", key) for key in ("median_ms", "peak_mb", "launch_ms")},
        "ours": {key: middle("ours", key) for key in ("median_ms", "peak_mb", "launch_ms")},
        "ratio": {key: ratio(key) for key in ("median_ms", "peak_mb", "launch_ms")},
        "rounds": runs,
    }


def number(value):
    """At least three significant digits, at most three decimals."""
    for least, digits in ((100, 0), (10, 1), (1, 2)):
        if value >= least:
            return f"{value:.{digits}f}"
    return f"{value:.3f}"


def table(rows):
    """Markdown."""
    yield "| case | what | PyTorch ms | ours ms | PyTorch / ours | PyTorch peak MB | ours peak MB | PyTorch / ours |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        cells = [row["case"], row["what"]]
        for key in ("median_ms", "peak_mb"):
            cells += [number(row["pytorch"][key]), number(row["ours"][key]), f"{row['ratio'][key]:.2f}"]
        yield f"| {' | '.join(cells)} |"


def main():
    cases = {case["name"]: case for case in tomllib.loads((HERE / "cases.toml").read_text())["case"]}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="length of one measurement (5)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side (5)")
    parser.add_argument("--cases", default=",".join(cases), help="names from cases.toml (all)")
    parser.add_argument("--what", default="step,latency", help="of step, latency, throughput (step,latency)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side (2)")
    parser.add_argument("--ours", default="target/release/examples/measure", help="command of the Rust side")
    parser.add_argument("--json", action="store_true", help="print all that was measured as JSON, not a table")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        fail("--rounds must be at least 1")

    chosen = listed(arguments.cases, cases, "case")
    whats = listed(arguments.what, WHATS, "measurement")
    ours = shlex.split(arguments.ours)
    if not ours or shutil.which(ours[0]) is None:
        fail(
            f"there is no program {arguments.ours!r}. From the root of the repository, build it with\n"
            "    cargo build --release --example measure\nor name another with --ours"
        )
    torch = about_torch()
    sides = {"pytorch": [sys.executable, str(HERE / "measure.py")], "ours": ours}

    pairs = [(case, what) for case in chosen for what in whats if what in cases[case].get("what", WHATS)]
    rows = [compare(sides, case, what, arguments) for case, what in pairs]
    if arguments.json:
        print(json.dumps({"torch": torch, "threads": arguments.threads, "rows": rows}, indent=1))
        return
    print("\n".join(table(rows)))
    print(
        f"\nPyTorch {torch['version']}, whose import alone takes {torch['import_mb']:.0f} MB; "
        f"{arguments.threads} threads; medians of {arguments.rounds} rounds of {arguments.seconds:g} s."
    )


if __name__ == "__main__":
    main()

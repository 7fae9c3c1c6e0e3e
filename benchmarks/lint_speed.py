"""How long `lint` takes for HH-like rows, against the time polars needs to read the same file.

Each is a process of its own; both take turns, and medians are told. The rows are made from the sample in examples/, each
with a number of its own in its first turn.

    python benchmarks/lint_speed.py --rows 1000000 --repeats 3
"""

import argparse
import gzip
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

SAMPLE = Path(__file__).parents[1] / "examples" / "hh-helpful-1000.jsonl.gz"
TELL = (
    "; peak = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))"
    "; print(seconds, peak)"
)
TIME = "import sys, time; began = time.perf_counter(); {run}; seconds = time.perf_counter() - began" + TELL
LOAD = "from rpo_data import lint"
STYLE = ("markdown", "refusals", "prompt_echo")
RUNS = {
    "polars.read_ndjson": ("import polars", "polars.read_ndjson(sys.argv[1])"),
    # structure, emptiness, roles, exact duplicates, contradictions, length bias, label balance
    "lint, rules": (LOAD, f"lint(sys.argv[1], off={(*STYLE, 'personal_data', 'mixed_languages')})"),
    "lint, and style": (LOAD, "lint(sys.argv[1], off=('personal_data', 'mixed_languages'))"),
    "lint, all": (LOAD, "lint(sys.argv[1])"),
}


def make_rows(path: Path, count: int) -> None:
    """Write HH-like rows as JSON lines."""
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    chance = random.Random(0)
    with path.open("w", encoding="utf-8") as out:
        for number in range(count):
            record = chance.choice(records)
            own = {side: text.replace("\n\nHuman: ", f"\n\nHuman: ({number}) ", 1) for side, text in record.items()}
            out.write(json.dumps(own) + "\n")


def measure(name: str, path: Path) -> tuple[float, float]:
    """Seconds and peak memory (MiB) of one run in a process of its own, which has read the small sample before."""
    load, run = RUNS[name]
    warm = f"{load}; {run.replace('sys.argv[1]', repr(str(SAMPLE)))}"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {warm}; {TIME.format(run=run)}", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, peak = done.stdout.split()
    return float(seconds), int(peak) / 1024


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        make_rows(path, options.rows)
        print(f"{options.rows:,} rows, {path.stat().st_size / 2**20:,.0f} MiB; {platform.machine()}, {os.cpu_count()} cores; "
              f"Python {platform.python_version()}, polars {version('polars')}")  # fmt: skip
        found = {name: [] for name in RUNS}
        for _ in range(options.repeats):
            for name in RUNS:
                found[name].append(measure(name, path))
    base = statistics.median(seconds for seconds, _ in found["polars.read_ndjson"])
    for name, runs in found.items():
        seconds = statistics.median(seconds for seconds, _ in runs)
        print(f"{name:<20}{seconds:>8.2f} s{seconds / base:>7.1f} x{max(peak for _, peak in runs):>8,.0f} MiB peak")


if __name__ == "__main__":
    main()

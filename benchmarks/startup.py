"""How long `steelseg --help` takes, beside an interpreter that does nothing.

    python benchmarks/startup.py [--rounds 40]

Whole processes in pairs, so that both meet the same machine; the ratio is the median of the
pairs'. The command is started as its entry point does, without the script that pip writes.
"""

import argparse
import json
import subprocess
import sys
import time
from statistics import median

NOTHING = [sys.executable, "-c", "pass"]
HELP = [
    sys.executable,
    "-c",
    "import sys; from steelseg.cli.main import main; sys.exit(main())",
    "--help",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    milliseconds(HELP)  # Writes the compiled modules.
    pairs = [(milliseconds(NOTHING), milliseconds(HELP)) for _ in range(args.rounds)]
    nothing, help_ = (median(column) for column in zip(*pairs, strict=True))
    ratio = median(b / a for a, b in pairs)
    print(
        json.dumps(
            {
                "rounds": args.rounds,
                "python_pass_ms": round(nothing, 1),
                "steelseg_help_ms": round(help_, 1),
                "times_as_long": round(ratio, 2),
            },
            indent=1,
        )
    )


def milliseconds(command):
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()

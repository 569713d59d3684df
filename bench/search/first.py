"""What a fresh process spends until its first proposals: CPU and wall seconds, imports included, by algorithm.

OMP_NUM_THREADS=1 python bench/search/first.py [--repeats 5] [--asks 12]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

from luthier import search

SCRIPT = """
import luthier as lt
space = lt.Space(a=lt.Float(-5, 5), b=lt.Float(-5, 5), lr=lt.Float(1e-5, 1, log=True), d=lt.Float(0, 1),
                 k=lt.Int(1, 20), c=lt.Choice(["u", "v", "w"]))
loop = lt.AskTell(space, algorithm="{algorithm}", minimize="loss", seed=0)
for i in range({asks}):
    loop.tell(loop.ask(), float(i % 7))
"""


def spent(algorithm: str, asks: int) -> tuple[float, float]:
    """CPU and wall seconds of one process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", SCRIPT.format(algorithm=algorithm, asks=asks)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - start


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--repeats", type=int, default=5)
    reader.add_argument("--asks", type=int, default=12)
    wanted = reader.parse_args()
    print(f"| algorithm | CPU s, first proposal | wall s | CPU s, {wanted.asks} proposals |")
    print("|---" * 4 + "|")
    for algorithm in search.names():
        one = sorted(spent(algorithm, 1) for _ in range(wanted.repeats))[wanted.repeats // 2]
        some = sorted(spent(algorithm, wanted.asks) for _ in range(wanted.repeats))[wanted.repeats // 2]
        print(f"| {algorithm} | {one[0]:.2f} | {one[1]:.2f} | {some[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()

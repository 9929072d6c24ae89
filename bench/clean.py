"""How fast clean is, on one core and on two, and how much memory its processes take.

    python -m bench.clean ../shared/corpora/novels --megabytes 100 1000

Repeats the texts of a folder with changes until there are so many megabytes: half of the copies
are near duplicates (one word in fifty replaced), half are not (one in three). Each way of cleaning
runs in a fresh process; the ways take turns, round by round, and medians are printed.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import yaml

from bench.shared import ROOT, copies, measure

WAYS = (("near", 1), ("near", 2), ("keep", 1), ("keep", 2))  # duplicates, processes


def main() -> None:
    """Makes the texts, times every way of cleaning them, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", type=Path, help="a folder of .txt and .txt.gz files")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    seconds: dict[tuple[int, str, int], float] = {}
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory(dir=ROOT) as folder:
            raw = Path(folder) / "raw"
            size = make_texts(options.texts, raw, megabytes * 10**6)
            rows = time_all(raw, options.rounds)
        for (duplicates, processes), runs in rows.items():
            median = statistics.median(run[0] for run in runs)
            seconds[megabytes, duplicates, processes] = median
            alone = seconds[megabytes, duplicates, 1]
            print(
                f"{size / 1e6:8,.0f} MB  duplicates {duplicates:4}  processes {processes}  "
                f"{median:7.1f} s  {size / 1e6 / median / processes:6.1f} MB/s a core  "
                f"{alone / median:4.2f} times one  "
                f"largest process {max(run[1] for run in runs) / 1e6:5.0f} MB",
                flush=True,
            )
    first, last = min(options.megabytes), max(options.megabytes)
    if first != last:
        for duplicates, processes in WAYS:
            ratio = seconds[last, duplicates, processes] / seconds[first, duplicates, processes]
            print(f"{last} MB against {first}: {ratio:.1f} times ({duplicates}, {processes})")


def make_texts(texts: Path, raw: Path, size: int) -> int:
    """Writes changed copies of texts and their manifest; returns their bytes."""
    raw.mkdir()
    written = 0
    files = []
    for number, text in enumerate(copies(texts)):
        if written >= size:
            break
        data = text.encode()
        name = f"{number:06d}.txt"
        (raw / name).write_bytes(data)
        files.append({"name": name, "url": "", "sha256": "", "bytes": len(data), "licence": ""})
        written += len(data)
    (raw / "manifest.json").write_text(json.dumps({"corpus": "bench", "files": files}))
    return written


def time_all(raw: Path, rounds: int) -> dict[tuple[str, int], list[tuple[float, int]]]:
    """Seconds and bytes of the largest process for each way, a list of rounds."""
    found: dict[tuple[str, int], list[tuple[float, int]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for duplicates, processes in WAYS:
            found[duplicates, processes].append(measure_clean(raw, duplicates, processes))
    return found


def measure_clean(raw: Path, duplicates: str, processes: int) -> tuple[float, int]:
    """Cleans in a process of its own: seconds, and the bytes of its largest process."""
    with tempfile.TemporaryDirectory(dir=raw.parent) as folder:
        environment = {"ATLAS_PARALLEL": str(processes), "OMP_NUM_THREADS": "1"}
        _, seconds, largest = measure(
            "bench.clean:clean", raw, folder, duplicates, environment=environment
        )
    return seconds, largest


def clean(raw: str, folder: str, duplicates: str) -> None:
    """What is timed: the stage but for its start."""
    from atlas.cleaning.clean import clean_corpus
    from atlas.params.schema import CleanParams

    values = yaml.safe_load((ROOT / "params.yaml").read_text())["clean"]
    params = CleanParams(**(values | {"duplicates": duplicates}))
    clean_corpus(Path(raw), Path(folder) / "clean", params, Path(folder) / "unfinished")


if __name__ == "__main__":
    main()

"""Measure the speed of clean on one and two cores, and the memory of its processes.

    python -m bench.clean ../shared/corpora/novels --megabytes 100 1000

The texts of a folder are repeated with changes up to the given size: half of the copies are near
duplicates (one word in fifty replaced), half are not (one in three). Each configuration runs in a
fresh process, the configurations alternate, and medians are printed.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import yaml

from bench.shared import ROOT, copies, measure

CONFIGURATIONS = (  # clean.duplicates, processes
    ("near", 1),
    ("near", 2),
    (None, 1),
    (None, 2),
)


def main() -> None:
    """Create the texts, time every configuration, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", type=Path, help="a folder of .txt and .txt.gz files")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    seconds: dict[tuple[int, str | None, int], float] = {}
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory(dir=ROOT) as folder:
            raw = Path(folder) / "raw"
            size = make_texts(options.texts, raw, megabytes * 10**6)
            rows = time_all(raw, options.rounds)
        for (duplicates, processes), runs in rows.items():
            median = statistics.median(run[0] for run in runs)
            seconds[megabytes, duplicates, processes] = median
            one_process = seconds[megabytes, duplicates, 1]
            print(
                f"{size / 1e6:8,.0f} MB  duplicates {duplicates!s:4}  processes {processes}  "
                f"{median:7.1f} s  {size / 1e6 / median / processes:6.1f} MB/s per core  "
                f"speed-up {one_process / median:4.2f}  "
                f"largest process {max(run[1] for run in runs) / 1e6:5.0f} MB",
                flush=True,
            )
    first, last = min(options.megabytes), max(options.megabytes)
    if first != last:
        for duplicates, processes in CONFIGURATIONS:
            ratio = seconds[last, duplicates, processes] / seconds[first, duplicates, processes]
            print(f"{last} MB takes {ratio:.1f} times {first} MB ({duplicates}, {processes})")


def make_texts(texts: Path, raw: Path, size: int) -> int:
    """Write changed copies of texts and a manifest; return their total bytes."""
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


def time_all(raw: Path, rounds: int) -> dict[tuple[str | None, int], list[tuple[float, int]]]:
    """Measure each configuration once per round: seconds, and bytes of the largest process."""
    runs: dict[tuple[str | None, int], list[tuple[float, int]]] = {
        configuration: [] for configuration in CONFIGURATIONS
    }
    for _ in range(rounds):
        for duplicates, processes in CONFIGURATIONS:
            runs[duplicates, processes].append(measure_clean(raw, duplicates, processes))
    return runs


def measure_clean(raw: Path, duplicates: str | None, processes: int) -> tuple[float, int]:
    """Clean in a new process; return seconds, and bytes of its largest process."""
    with tempfile.TemporaryDirectory(dir=raw.parent) as folder:
        environment = {"ATLAS_PARALLEL": str(processes), "OMP_NUM_THREADS": "1"}
        _, seconds, largest = measure(
            "bench.clean:clean", raw, folder, duplicates or "", environment=environment
        )
    return seconds, largest


def clean(raw: str, folder: str, duplicates: str) -> None:
    """Run the timed part: the stage without its start-up."""
    from atlas.cleaning.clean import clean_corpus
    from atlas.params.schema import CleanParams

    values = yaml.safe_load((ROOT / "params.yaml").read_text())["clean"]
    params = CleanParams(**(values | {"duplicates": duplicates or None}))
    clean_corpus(Path(raw), Path(folder) / "clean", params, Path(folder) / "unfinished")


if __name__ == "__main__":
    main()

"""How fast clean is, on one core and on two, and how much memory its processes take.

    python bench/clean.py ../shared/corpora/novels --megabytes 100 1000

Repeats the texts of a folder with changes until there are so many megabytes: half of the copies
are near duplicates (one word in fifty replaced), half are not (one in three). Each way of cleaning
runs in a fresh process; the ways take turns, round by round, and medians are printed.
"""

import argparse
import gzip
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).resolve().parent.parent
REPLACED = (0.02, 0.33)  # shares of words, in turn
WAYS = (("near", 1), ("near", 2), ("keep", 1), ("keep", 2))  # duplicates, processes
CODE = "import sys; from bench.clean import clean; clean(*sys.argv[1:])"


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


def copies(texts: Path) -> Iterator[str]:
    """The texts as they are, then changed ones without end."""
    sources = [read(path) for path in sorted(texts.iterdir()) if ".txt" in path.suffixes]
    if not sources:
        sys.exit(f"error: {texts} holds no .txt and no .txt.gz")
    yield from sources
    generator = random.Random(1)
    while True:
        for share in REPLACED:
            for source in sources:
                yield changed(source, share, generator)


def read(path: Path) -> str:
    """A text file, gzipped or not."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode(errors="replace")


def changed(text: str, share: float, generator: random.Random) -> str:
    """A share of the words replaced by others of the text; lines stay as they are."""
    words = text.split(" ")
    for place in generator.sample(range(len(words)), round(share * len(words))):
        words[place] = words[generator.randrange(len(words))]
    return " ".join(words)


def time_all(raw: Path, rounds: int) -> dict[tuple[str, int], list[tuple[float, int]]]:
    """Seconds and bytes of the largest process for each way, a list of rounds."""
    found: dict[tuple[str, int], list[tuple[float, int]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for duplicates, processes in WAYS:
            found[duplicates, processes].append(measure(raw, duplicates, processes))
    return found


def measure(raw: Path, duplicates: str, processes: int) -> tuple[float, int]:
    """Cleans in a process of its own: seconds, and the bytes of its largest process."""
    folder = Path(tempfile.mkdtemp(dir=raw.parent))
    environment = os.environ | {"ATLAS_PARALLEL": str(processes), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(raw), str(folder), duplicates],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
        stderr=subprocess.DEVNULL,
    )
    largest = 0
    while process.poll() is None:
        largest = max(largest, *sizes(process.pid))
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"error: cleaning {raw} ended with {process.returncode}")
    shutil.rmtree(folder)
    return seconds, largest


def sizes(pid: int) -> list[int]:
    """Resident bytes of a process and those below it."""
    found = [0, 0]
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            memory = process.memory_info()
            found.append(memory.rss - memory.shared)
    except psutil.Error:
        pass  # it has just ended
    return found


def clean(raw: str, folder: str, duplicates: str) -> None:
    """What is timed: the stage but for its start."""
    from atlas.cleaning.clean import clean_corpus
    from atlas.params import CleanParams

    values = yaml.safe_load((ROOT / "params.yaml").read_text())["clean"]
    params = CleanParams(**(values | {"duplicates": duplicates}))
    clean_corpus(Path(raw), Path(folder) / "clean", params, Path(folder) / "unfinished")


if __name__ == "__main__":
    main()

"""Clean raw files into documents and split them into train, val and test.

    dvc repro clean

``ATLAS_PARALLEL`` sets where it runs: a number of processes, dask:ADDRESS or ray:ADDRESS.
"""

from pathlib import Path

from atlas.cleaning.clean import clean_corpus
from atlas.cleaning.statistics import plot_tables
from atlas.pipeline.files import write_csv
from atlas.pipeline.stage import StageRun, run_stage


def main(run: StageRun) -> None:
    """Clean data/raw into data/clean."""
    metrics, statistics = clean_corpus(
        Path("data/raw"), run.output("data/clean"), run.params.clean, unfinished=run.checkpoints
    )
    for name, rows in plot_tables(statistics.values()).items():
        write_csv(run.output(f"metrics/corpus/{name}.csv"), rows)
    run.write_metrics(metrics)


if __name__ == "__main__":
    run_stage("clean", main)

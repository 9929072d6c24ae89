"""Fetch: bring the corpus named in params.yaml, byte for byte, with a manifest.

    dvc repro fetch

``ATLAS_MIRROR`` names a folder or URL in which downloads are looked for first.
"""

import os
from urllib.parse import urlsplit

from atlas.corpora.fetch import fetch_corpus
from atlas.pipeline.stage import Run, from_environment, run_stage


def main(run: Run) -> None:
    """Corpus name to data/raw."""
    mirror = os.environ.get("ATLAS_MIRROR")
    if mirror and not urlsplit(mirror).scheme:
        mirror = str(from_environment(mirror))
    metrics = fetch_corpus(
        run.params.corpus, run.output("data/raw"), mirror, unfinished=run.checkpoints
    )
    run.write_metrics(metrics)


if __name__ == "__main__":
    run_stage("fetch", main)

"""Fetch the corpus named in params.yaml, byte for byte, with a manifest.

    dvc repro fetch

``ATLAS_MIRROR`` names a folder or URL to try before the web.
"""

from urllib.parse import urlsplit

from atlas.corpora.fetch import fetch_corpus
from atlas.params.settings import settings
from atlas.pipeline.stage import StageRun, resolve_user_path, run_stage


def main(run: StageRun) -> None:
    """Fetch corpus into data/raw."""
    mirror = settings().mirror
    if mirror and not urlsplit(mirror).scheme:
        mirror = str(resolve_user_path(mirror))
    metrics = fetch_corpus(
        run.params.corpus, run.output("data/raw"), mirror, unfinished=run.checkpoints
    )
    run.write_metrics(metrics)


if __name__ == "__main__":
    run_stage("fetch", main)

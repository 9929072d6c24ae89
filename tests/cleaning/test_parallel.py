"""Clean gives the same bytes on any engine and after interruptions."""

import json
import random

import pytest

from atlas.cleaning import clean as clean_unit
from atlas.cleaning import splits
from atlas.cleaning.clean import clean_corpus
from atlas.cleaning.reading import read as units
from atlas.corpora.manifest import RawFile, write_manifest
from atlas.pipeline.files import files_below, sha256
from tests.small import WORDS, small_params, text


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Several formats with duplicates."""
    folder = tmp_path_factory.mktemp("raw")
    generator = random.Random(3)
    texts = [text(seed, sentences=20) for seed in range(150)]
    near = [each.replace(".", f" {generator.choice(WORDS)}.", 2) for each in texts[::3]]
    lines = [json.dumps({"text": each}) for each in [*texts, *near, *texts[::7]]]
    (folder / "a.jsonl").write_text("\n".join(lines))
    for number in range(20):
        (folder / f"{number}.txt").write_text(text(number + 200, sentences=30))
    names = sorted(path.name for path in folder.iterdir())
    write_manifest(folder, "test", [RawFile.describe(folder, name, "", "") for name in names])
    return folder


@pytest.fixture(autouse=True)
def many_tasks(monkeypatch):
    monkeypatch.setattr(units, "MIN_UNIT", 20_000)
    monkeypatch.setattr(units, "MIN_RANGE", 20_000)
    monkeypatch.setattr(splits, "MIN_SHARD", 10_000)


def clean(raw, folder, unfinished="unfinished"):
    """Clean; return the hash of each file, and the metrics."""
    metrics, _ = clean_corpus(raw, folder / "out", small_params().clean, folder / unfinished)
    files = files_below(folder / "out")
    return {str(file.relative_to(folder)): sha256(file) for file in files}, metrics


@pytest.fixture
def alone(raw, tmp_path, many_tasks):
    found, metrics = clean(raw, tmp_path / "alone")
    assert len(found) > 10
    assert metrics["rejected_exact_duplicate"] > 20
    assert metrics["rejected_near_duplicate"] > 20
    return found, metrics


def test_two_processes(alone, raw, tmp_path, monkeypatch):
    monkeypatch.setenv("ATLAS_PARALLEL", "2")
    assert clean(raw, tmp_path) == alone


@pytest.mark.slow
def test_a_dask_cluster(alone, raw, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        monkeypatch.setenv("ATLAS_PARALLEL", f"dask:{cluster.scheduler_address}")
        assert clean(raw, tmp_path) == alone


@pytest.mark.very_slow
def test_a_ray_cluster(alone, raw, tmp_path, monkeypatch):
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        monkeypatch.setenv("ATLAS_PARALLEL", f"ray:{cluster.address}")
        assert clean(raw, tmp_path) == alone
    finally:
        cluster.shutdown()


def test_an_interrupted_run_resumes_with_the_missing_units(alone, raw, tmp_path, monkeypatch):
    cleaned = []
    clean_item = clean_unit.clean_item

    def counting(*arguments):
        cleaned.append(1)
        if len(cleaned) == 120:
            raise KeyboardInterrupt
        return clean_item(*arguments)

    monkeypatch.setattr(clean_unit, "clean_item", counting)
    with pytest.raises(KeyboardInterrupt):
        clean(raw, tmp_path / "first", "../unfinished")
    assert list((tmp_path / "unfinished/units").glob(".*.partial"))
    done = len(list((tmp_path / "unfinished/units").glob("0*")))
    assert done > 2
    cleaned.clear()
    monkeypatch.setattr(
        clean_unit, "clean_item", lambda *args: cleaned.append(1) or clean_item(*args)
    )
    assert clean(raw, tmp_path / "second", "../unfinished") == alone
    total = alone[1]["documents_in"]
    assert 0 < len(cleaned) < total

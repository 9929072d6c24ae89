"""`atlas export` creates a folder, whole or not at all."""

import errno

import pytest

from atlas.errors import AtlasError
from atlas.export.bundle import ModelBundle, ModelMetadata
from atlas.export.gguf.writer import write_gguf
from atlas.tools.export import export_to
from tests.export.models import SHAPES, store
from tests.small import text


@pytest.fixture
def bundle(tmp_path, tokenizer):
    def of(shape="llama", name="mine"):
        store(tmp_path / "model", SHAPES[shape], tokenizer)
        if not (tmp_path / "tokenizer").exists():
            tokenizer.save(tmp_path / "tokenizer")
        return ModelBundle.load(tmp_path / "model", tmp_path / "tokenizer", ModelMetadata(name))

    return of


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False])
def test_a_folder_is_created_and_the_findings_are_printed(tmp_path, bundle, given, capsys, caplog):
    if given:
        (tmp_path / "held-out.txt").write_text(text(5), encoding="utf-8")
    file = tmp_path / "held-out.txt" if given else None
    export_to(tmp_path / "out", bundle(), ["gguf:q4_k_m"], file)
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["Modelfile", "README.md", "mine-q4_k_m.gguf"]
    printed = capsys.readouterr()
    (row,) = [line for line in printed.out.splitlines() if line.startswith("mine-q4_k_m.gguf")]
    assert float(row.split()[2]) > 1  # a perplexity
    assert "logit difference: " in printed.out
    assert "K types need rows that are a multiple of 256" in caplog.text
    over = "validation text" if given else "text the model wrote itself"
    assert f"tokens of {over}." in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(
    ("shape", "formats", "message"),
    [
        (
            "llama",
            ["gguf:q4"],
            r"--to gguf:q4: it must be one of gguf:f32, .*did you mean",
        ),
        ("llama", ["gguf:f32", "gguf:f32"], "--to: a format is listed twice"),
        ("llama-odd", ["gguf:q8_0"], "packs rows of 32, and model.d_model is 54: try"),
        ("refact-odd", ["hugging_face"], "transformers runs no model with alibi"),
    ],
)
def test_an_unsupported_format_is_refused_before_any_work(
    tmp_path, bundle, shape, formats, message
):
    with pytest.raises(AtlasError, match=message):
        export_to(tmp_path / "out", bundle(shape), formats, None)
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_not_changed(tmp_path, bundle):
    (tmp_path / "out").mkdir()
    with pytest.raises(AtlasError, match="out: already exists"):
        export_to(tmp_path / "out", bundle(), ["gguf:f32"], None)
    with pytest.raises(AtlasError, match=r"x/out: folder .*x does not exist"):
        export_to(tmp_path / "x/out", bundle(), ["gguf:f32"], None)


@pytest.mark.parametrize(("content", "message"), [(b"", "contains no text"), (b"\xff", "UTF-8")])
def test_a_file_without_text_is_refused(tmp_path, bundle, content, message):
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(AtlasError, match=message):
        export_to(tmp_path / "out", bundle(), ["gguf:f32"], tmp_path / "x.txt")
    with pytest.raises(AtlasError, match="use only letters, digits"):
        export_to(tmp_path / "out", bundle(name="a b"), ["gguf:f32"], None)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, bundle, monkeypatch):
    def encode(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("atlas.export.gguf.writer.encode", encode)
    with pytest.raises(AtlasError, match=r"mine-f32\.gguf: not written \(No space left on device"):
        export_to(tmp_path / "out", bundle(), ["gguf:f16"], None)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_a_crash_of_a_runtime_leaves_nothing(tmp_path, bundle, monkeypatch):
    def write_half(path, *arguments):
        write_gguf(path, *arguments)
        path.write_bytes(path.read_bytes()[:3000])

    monkeypatch.setattr("atlas.export.export.write_gguf", write_half)
    with pytest.raises(AtlasError, match=r"f32\.gguf: llama\.cpp failed with exit code"):
        export_to(tmp_path / "out", bundle(), ["gguf:f32"], None)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_onnx_without_its_packages_says_what_to_install(tmp_path, bundle, monkeypatch):
    monkeypatch.setattr("atlas.params.runtime_support.ONNX_PACKAGES", ("no_such_package",))
    with pytest.raises(AtlasError, match=r"--to: onnx needs no_such_package: run `pip install 'at"):
        export_to(tmp_path / "out", bundle(), ["onnx"], None)
    assert not (tmp_path / "out").exists()

"""`atlas export`: a model outside the pipeline, whole or not at all."""

import pytest

from atlas.errors import AtlasError
from atlas.export import command as module
from atlas.export.about import About
from atlas.export.command import export_to
from atlas.export.gguf.file import write_gguf
from atlas.export.source import Source
from tests.export.models import SHAPES, store
from tests.small import text


@pytest.fixture
def source(tmp_path, tokenizer):
    def of(shape="llama", name="mine"):
        store(tmp_path / "model", SHAPES[shape], tokenizer)
        if not (tmp_path / "tokenizer").exists():
            tokenizer.save(tmp_path / "tokenizer")
        return Source.load(tmp_path / "model", tmp_path / "tokenizer", About(name))

    return of


@pytest.mark.parametrize("given", [True, False])
def test_a_folder_is_made_and_what_was_found_is_printed(tmp_path, source, given, capsys):
    if given:
        (tmp_path / "held-out.txt").write_text(text(5), encoding="utf-8")
    file = tmp_path / "held-out.txt" if given else None
    export_to(tmp_path / "out", source(), ["gguf:q4_k_m"], file)
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["Modelfile", "README.md", "mine-q4_k_m.gguf"]
    printed = capsys.readouterr()
    (row,) = [line for line in printed.out.splitlines() if line.startswith("mine-q4_k_m.gguf")]
    assert float(row.split()[2]) > 1  # a perplexity
    assert "logit difference: " in printed.out
    assert "are no multiple of 256, as K types want" in printed.err
    over = "held-out text" if given else "text that it wrote itself"
    assert f"tokens of {over}." in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(
    ("shape", "formats", "message"),
    [
        (
            "llama",
            ["gguf:q4"],
            r"--to gguf:q4: it must be one of gguf:f32, .*did you mean",
        ),
        ("llama", ["gguf:f32", "gguf:f32"], "--to: a format is named twice"),
        ("llama-odd", ["gguf:q8_0"], "packs rows of 32, and model.d_model is 54: try"),
        ("refact-odd", ["hugging_face"], "transformers runs no model with alibi"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_before_any_work(
    tmp_path, source, shape, formats, message
):
    with pytest.raises(AtlasError, match=message):
        export_to(tmp_path / "out", source(shape), formats, None)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path, source):
    (tmp_path / "out").mkdir()
    with pytest.raises(AtlasError, match="out: it is there already"):
        export_to(tmp_path / "out", source(), ["gguf:f32"], None)
    with pytest.raises(AtlasError, match="x/out: there is no folder"):
        export_to(tmp_path / "x/out", source(), ["gguf:f32"], None)


@pytest.mark.parametrize(("content", "message"), [(b"", "there is no text"), (b"\xff", "UTF-8")])
def test_a_text_that_is_none_is_refused(tmp_path, source, content, message):
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(AtlasError, match=message):
        export_to(tmp_path / "out", source(), ["gguf:f32"], tmp_path / "x.txt")
    with pytest.raises(AtlasError, match="use letters, digits"):
        export_to(tmp_path / "out", source(name="a b"), ["gguf:f32"], None)


class FullDisk:
    """A file that takes some bytes and no more."""

    def __init__(self, file):
        self.file = file

    def write(self, data):
        raise OSError(28, "No space left on device")

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, source, monkeypatch):
    add = module.export_model

    def with_full_disk(*arguments):
        monkeypatch.setattr(
            "atlas.export.gguf.file.TensorStream.tofile",
            lambda stream, file: FullDisk(file).write(b""),
        )
        return add(*arguments)

    monkeypatch.setattr(module, "export_model", with_full_disk)
    with pytest.raises(AtlasError, match=r"mine-f32\.gguf: not written \(No space left on"):
        export_to(tmp_path / "out", source(), ["gguf:f16"], None)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_a_crash_of_a_runtime_leaves_nothing(tmp_path, source, monkeypatch):
    def write_half(path, *arguments):
        write_gguf(path, *arguments)
        path.write_bytes(path.read_bytes()[:3000])

    monkeypatch.setattr("atlas.export.gguf.files.write_gguf", write_half)
    with pytest.raises(AtlasError, match=r"f32\.gguf: llama\.cpp failed with exit code"):
        export_to(tmp_path / "out", source(), ["gguf:f32"], None)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]

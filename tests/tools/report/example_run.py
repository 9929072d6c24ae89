"""A small invented project with results of every kind."""

import json
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tests.code_walk import ROOT

ODD = "<b>& \"'\x00\x1b[31m\u202e$x^2$</b>"
JSONS: dict[str, dict[str, Any]] = {
    "fetch": {"corpus": "arithmetic", "files": 2, "bytes": 2780545},
    "clean": {
        "documents_in": 722,
        "documents_kept": 721,
        "rejected_exact_duplicate": 1,
        "changed_mojibake": 3,
        "train_documents": 658,
        "train_words": 3654,
        "train_characters": 24895,
        "val_leakage": 0.116968,
    },
    "tokenize": {"train_tokens": 873667, "val_tokens": 24649},
    "tokenizer": {
        "vocab_size": 2048,
        "val_bytes_per_token": 2.7317,
        "unused_pieces": 9,
        "longest_pieces": "················ ·implementation <i>",
    },
    "train": {"best_val_loss": 3.586, "best_step": 40, "steps": 40, "parameters": 1000576}
    | {"tokens_seen": 1228800},
    "evaluate": {
        "val_loss": 3.5,
        "val_perplexity": 33.12,
        "val_bits_per_byte": 1.9,
        "val_accuracy": 0.42,
        "val_unigram_bits_per_byte": 3.1,
        "val_bigram_bits_per_byte": 2.3,
        "val_sliding_bits_per_byte": 1.8,
        "samples_copied": 0.03,
        "real_text_copied": 0.12,
    },
    "export": {
        "perplexity": 33.12,
        "f32_perplexity": 33.12,
        "texts": 91,
        "tokens": 26443,
        "token_mismatches": 0,
        "greedy_tokens": 180,
        "greedy_mismatches": 0,
        "logit_difference": 1.76e-05,
        "q8_0_logit_difference": 0.23,
        "q8_0_greedy_mismatches": 1,
    },
    "timing/train": {"seconds": 155.63, "tokens_per_second": 8330.5, "peak_memory_mb": 556},
    "timing/clean": {"seconds": 2.56},
}
STEPS = range(10, 50, 10)
TABLES = {
    "train": ["step,loss,loss_average,lr,gradient_norm"]
    + [f"{step},{7 - step / 10},{7.2 - step / 10},0.004,{30 / step}" for step in STEPS],
    "val": ["step,loss,perplexity,accuracy,train_loss,train_accuracy,weight_norm"]
    + [f"{step},{7 - step / 12},9,{step / 80},{6.9 - step / 10},{step / 60},9" for step in STEPS],
    "timing/train": ["step,tokens_per_second", "10,7000", "20,8000"],
    "corpus/words": ["word,count", "the,22630", f'"{ODD.replace(chr(34), chr(34) * 2)}",20'],
    "corpus/lengths": ["words,documents", "4-7,10", "8-15,52"],
    "export": [
        "file,format,bytes,bits_per_weight,perplexity,kl_divergence,top_1_agreement,types",
        "atlas-q8_0.gguf,q8_0,1113760,8.9,33.2,0.00015,0.988,29 q8_0",
    ],
    "tables/sources": [
        "source,documents,tokens,bytes,loss,bits_per_byte,accuracy",
        "add,10,100,300,1.2,1.9,0.75",
        "divide,10,100,300,,,0.25",
    ],
    "tables/confusion": ["actual,predicted,count,share", "2,2,9,0.9", "2,10,1,0.1", "10,10,4,1"],
    "tables/calibration": ["confidence,accuracy,tokens", "0.1,0.2,10", "0.5,0.4,30", "0.9,0.95,60"],
    "tables/failures": ["question,expected,answered"] + [f"{n}+1,{n + 1},{n}" for n in range(40)],
    "tables/edge_cases": ["question,expected,answered", "0-0,0,"],
    "tables/digits": ["operation,found", "add,0.75"],
    "tables/heads": ["layer,head,previous_token,induction", "0,0,0.9,0.01", "0,1,0.1,"],
}
SAMPLES = (
    "At temperature 0.8.\n\n    the lamp sees\n    \n    a stone\n\n    {}\n\nFreely:\n\n    one\n"
)


def png(width: int = 40, height: int = 30) -> bytes:
    """A picture in one color."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = zlib.compress((b"\0" + b"\x80" * width) * height)
    parts = ((b"IHDR", header), (b"IDAT", lines), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8", errors="surrogatepass"))


def make_project(root: Path) -> Path:
    """Write params and results of every kind; return the metrics folder."""
    metrics = root / "metrics"
    for name in ("params.yaml", "dvc.yaml"):
        write(root / name, (ROOT / name).read_text(encoding="utf-8"))
    for name, values in JSONS.items():
        write(metrics / f"{name}.json", json.dumps(values))
    for name, lines in TABLES.items():
        write(metrics / f"{name}.csv", "\n".join(lines) + "\n")
    write(metrics / "samples.md", SAMPLES.format(ODD + "\ud800"))
    (metrics / "pictures").mkdir()
    (metrics / "pictures/attention_layer-1.png").write_bytes(png())
    return metrics


def text_of(page: str) -> str:
    """The text of a page without markup and styles."""

    class Text(HTMLParser):
        text = ""

        def handle_data(self, data: str) -> None:
            if self.cdata_elem is None:
                self.text += data

        def handle_endtag(self, tag: str) -> None:
            self.text += " " * (tag in ("td", "th", "dt", "dd", "p"))

    parser = Text()
    parser.feed(page)
    return parser.text

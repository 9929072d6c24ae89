"""File formats: recognized by content first, by suffix where content leaves a choice.

A format with a signature (gzip, zip, Parquet, PDF ...) is found by it, whatever the name. Without
one, the suffix decides if the content agrees: ``.json`` that does not start like JSON is text.
Text of an unknown suffix is recognized by how it starts: HTML, subtitles, mail, JSON Lines.
"""

import functools
import re
import tarfile
from dataclasses import dataclass
from typing import Literal

Format = Literal[
    "text",
    "json",
    "jsonl",
    "csv",
    "parquet",
    "arrow",
    "zip",
    "tar",
    "html",
    "xml",
    "mediawiki",
    "wikiextractor",
    "epub",
    "docx",
    "odt",
    "pdf",
    "subtitles",
    "mail",
    "mbox",
    "notebook",
    "unsupported",
]
HEAD = 1 << 16  # bytes that detection looks at

NAMES: dict[Format, str] = {  # in messages
    "text": "plain text",
    "json": "JSON",
    "jsonl": "JSON Lines",
    "csv": "a table",
    "parquet": "a Parquet file",
    "arrow": "an Arrow file",
    "zip": "a zip archive",
    "tar": "a tar archive",
    "html": "HTML",
    "xml": "XML",
    "mediawiki": "a MediaWiki dump",
    "wikiextractor": "WikiExtractor output",
    "epub": "an EPUB book",
    "docx": "a Word document",
    "odt": "an OpenDocument text",
    "pdf": "a PDF",
    "subtitles": "subtitles",
    "mail": "a mail",
    "mbox": "a mailbox",
    "notebook": "a Jupyter notebook",
}
COMPRESSIONS = {  # suffixes
    **dict.fromkeys((".gz", ".gzip", ".bgz"), "gzip"),
    ".bz2": "bzip2",
    ".xz": "xz",
    **dict.fromkeys((".zst", ".zstd"), "zstd"),
}
COMPRESSED_TARS = {".tgz": ".gz", ".tbz": ".bz2", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}
PROSE = (  # noqa: SIM905
    ".txt .text .asc .md .markdown .mkd .mdx .rmd .qmd .rst .adoc .asciidoc .org .textile .wiki "
    ".tex .ltx .bib .log .yaml .yml .toml .ini .cfg .conf .properties .po .pot .diff .patch "
    ".nfo"
).split()
CODE = (  # noqa: SIM905
    ".py .pyi .pyx .c .h .cc .cpp .cxx .hh .hpp .hxx .cu .cuh .cs .java .kt .kts .scala .groovy "
    ".js .mjs .cjs .jsx .ts .tsx .vue .svelte .go .rs .rb .php .pl .pm .lua .r .jl .m .mm .swift "
    ".dart .sh .bash .zsh .fish .ps1 .bat .cmd .sql .hs .ml .mli .fs .ex .exs .erl .clj .cljs "
    ".lisp .el .scm .rkt .f .f90 .f95 .for .asm .s .v .sv .vhd .vhdl .pas .d .nim .zig .glsl "
    ".proto .thrift .cmake .mk .gradle .tf .css .scss .sass .less"
).split()
SUFFIXES: dict[str, Format] = {
    **dict.fromkeys((*PROSE, *CODE), "text"),
    ".json": "json",
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonlines"), "jsonl"),
    **dict.fromkeys((".csv", ".tsv", ".tab", ".psv"), "csv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".arrow", ".arrows", ".feather", ".ipc"), "arrow"),
    ".zip": "zip",
    ".tar": "tar",
    **dict.fromkeys((".html", ".htm", ".xhtml", ".xht"), "html"),
    **dict.fromkeys((".xml", ".fb2", ".tei"), "xml"),
    ".epub": "epub",
    ".docx": "docx",
    ".odt": "odt",
    ".pdf": "pdf",
    **dict.fromkeys((".srt", ".vtt", ".ass", ".ssa"), "subtitles"),
    ".eml": "mail",
    **dict.fromkeys((".mbox", ".mbx"), "mbox"),
    ".ipynb": "notebook",
}
MEDIA = (  # passed over, also when they are written as text
    *(".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ico", ".heic", ".psd"),
    *(".svg", ".ps", ".eps", ".xpm", ".xbm", ".ppm", ".pgm", ".dxf", ".stl", ".obj"),
    *(".mp3", ".wav", ".flac", ".ogg", ".opus", ".m4a", ".mp4", ".mkv", ".avi", ".mov", ".webm"),
    *(".exe", ".dll", ".so", ".dylib", ".o", ".a", ".class", ".jar", ".pyc", ".wasm", ".whl"),
    *(".ttf", ".otf", ".woff", ".woff2", ".iso", ".dmg"),
)
# Formats that people take for text, by signature, with advice.
UNSUPPORTED = {
    b"{\\rtf": "Rich Text (.rtf); save it as .docx or .txt",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old or encrypted Office file; save it as .docx",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"Rar!\x1a\x07": "a RAR archive; unpack it",
    b"\x04\x22\x4d\x18": "compressed with lz4; unpack it",
    b"\x1f\x9d": "compressed with compress (.Z); unpack it",
    b"WARC/": "a web archive (.warc); extract its pages",
    b"SQLite format 3\x00": "an SQLite database; export its texts as .csv",
    b"ITSF\x03": "a compiled help file (.chm)",
}
OFFICE = {  # in the names of a zip archive
    "word/": "docx",
    "xl/": "a spreadsheet (.xlsx); save it as .csv",
    "ppt/": "a presentation (.pptx); save it as .txt",
}
BINARY = (
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"\x7fELF",
    b"OggS",
    b"fLaC",
    b"ID3",
    b"RIFF",
    b"wOF",
)
MOBI = (b"BOOKMOBI", b"TEXtREAd")  # at byte 60
COMPRESSION_MAGIC = re.compile(
    rb"(?P<gzip>\x1f\x8b\x08)|(?P<bzip2>BZh[1-9](?:1AY&SY|\x17rE8P\x90))|(?P<xz>\xfd7zXZ\x00)"
    rb"|(?P<zstd>\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)"
)
BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
# Control characters except backspace, tab, line ends, escape, DOS's end of file, ISO 2022's shifts.
CONTROLS = bytes({*range(0x20), 0x7F} - {*b"\b\t\n\v\f\r\x0e\x0f\x1a\x1b"})
MAX_CONTROL_SHARE = 0.02  # of slightly damaged text; binary files have 0.05 or more
MAX_CONTROLS = 4  # in short text, at most a third of it
MIN_ZERO_SHARE = 0.3  # of every second byte, in UTF-16 and UTF-32

# No pattern can go back far, whatever the bytes.
HTML = re.compile(
    rb"(?>(?:<\?[^>]*>|<!--.*?-->|\s+)*)<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
TAG = re.compile(rb"<(?:!doctype|!--|/?[a-z][a-z0-9]*[\s/>])", re.I)
MEDIAWIKI = re.compile(rb"(?:<\?xml[^>]*>\s*)?<mediawiki\b")
WIKIEXTRACTOR = re.compile(rb"<doc id=\"[^\"]*\"[^>]*\btitle=\"")
TIME = rb"(?:\d{1,3}:)?\d{1,2}:\d{2}[,.]\d{1,3}"
SUBTITLES = re.compile(
    rb"WEBVTT\b|\[Script Info\]|(?:\d+[ \t]*\r?\n)?[ \t]*" + TIME + rb"[ \t]*-->[ \t]*" + TIME
)
MBOX = re.compile(rb"From (?=[^\r\n]{1,200}\d\d:\d\d)[^\r\n]{1,250}\r?\n>?[!-9;-~]{1,99}:")
MAIL_HEADERS = re.compile(
    rb"^(?:return-path|received|delivered-to|message-id|mime-version|from|to|subject|date|path"
    rb"|newsgroups|xref|organization|references|in-reply-to|content-type|x-[\w-]+):[ \t]",
    re.I | re.M,
)
HEADER = re.compile(rb"(?:[!-9;-~]+:[^\r\n]*\r?\n(?:[ \t]+\S[^\r\n]*\r?\n)*)+")
MIN_MAIL_HEADERS = 2
JSON_LINE = re.compile(rb"^[ \t]*[\[{\"]", re.M)


@dataclass(frozen=True)
class Detected:
    """The format of a file; None if it is neither known nor text."""

    format: Format | None
    expected: Format | None = None  # by suffix
    detail: str = ""  # about an unsupported format

    @property
    def mismatch(self) -> bool:
        """True if the suffix promises another format."""
        return self.expected is not None and self.format != self.expected


@functools.lru_cache(maxsize=64)
def split_suffixes(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a name in lower case without suffixes of compression, and these, outermost first."""
    plain, layers = name.lower(), []
    for short, compression in COMPRESSED_TARS.items():
        if plain.endswith(short):
            plain = f"{plain.removesuffix(short)}.tar{compression}"
    while suffix := next(filter(plain.endswith, COMPRESSIONS), None):
        plain = plain.removesuffix(suffix)
        layers.append(COMPRESSIONS[suffix])
    return plain, tuple(layers)


def format_of(name: str) -> Format | None:
    """Return the format that the suffix of a name promises, None if unknown."""
    plain = split_suffixes(name)[0].rpartition("/")[2]
    stem, dot, suffix = plain.rpartition(".")
    return SUFFIXES.get(f".{suffix}") if stem and dot else None


def compression_of(head: bytes) -> str | None:
    """Return the compression of a file by its first bytes."""
    magic = COMPRESSION_MAGIC.match(head)
    return magic.lastgroup if magic else None


def detect(name: str, head: bytes) -> Detected:
    """Detect the format of a file from its name and the first ``HEAD`` unpacked bytes."""
    expected = format_of(name)
    if head.startswith(tuple(UNSUPPORTED)):
        detail = next(detail for magic, detail in UNSUPPORTED.items() if head.startswith(magic))
        return Detected("unsupported", expected, detail)
    if head[60:68] in MOBI:
        detail = "a Kindle book (.mobi); convert it to .epub"
        return Detected("unsupported", expected, detail)
    if head.startswith(BINARY) or name.lower().endswith(MEDIA):
        return Detected(None, expected)
    if found := _by_signature(head, expected):
        return Detected(found, expected)
    if not looks_like_text(head):
        return Detected(None, expected)
    return Detected(_by_start(head, expected, split_suffixes(name)[0]), expected)


def format_of_zip(names: list[str], expected: Format | None) -> Detected:
    """Tell documents that are zip archives from plain archives, by the names in them."""
    if "[Content_Types].xml" in names:
        for folder, kind in OFFICE.items():
            if any(name.startswith(folder) for name in names):
                supported = kind == "docx"
                return Detected("docx" if supported else "unsupported", expected, kind)
    if "META-INF/container.xml" in names:
        return Detected("epub", expected)
    if {"mimetype", "content.xml"} <= set(names):
        return Detected("odt", expected)
    return Detected("zip", expected)


def _by_signature(head: bytes, expected: Format | None) -> Format | None:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08PK")):
        return "zip"  # format_of_zip tells which documents are zip archives
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1") or (head.startswith(b"\xff" * 4) and expected == "arrow"):
        return "arrow"
    if b"%PDF-" in head[:1024] and (expected == "pdf" or head.startswith(b"%PDF-")):
        return "pdf"
    if head[257:262] == b"ustar" or (expected == "tar" and _is_tar_header(head[:512])):
        return "tar"
    return None


def _is_tar_header(block: bytes) -> bool:
    """Check the checksum, which tar archives of the first kind have instead of a signature."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def has_few_controls(data: bytes) -> bool:
    """Check that there are not more control characters than in slightly damaged text."""
    controls = len(data) - len(data.translate(None, CONTROLS))
    return controls <= max(MAX_CONTROL_SHARE * len(data), min(MAX_CONTROLS, len(data) // 3))


def looks_like_text(head: bytes) -> bool:
    """Check that the start of a file has few control characters, or is UTF-16 or UTF-32."""
    if head.startswith(BYTE_ORDER_MARKS):
        return True
    if has_few_controls(head):
        return True
    shares = sorted(head[start::2].count(0) / max(1, len(head) // 2) for start in (0, 1))
    return shares[1] > MIN_ZERO_SHARE and (shares[0] < MAX_CONTROL_SHARE or shares[1] > 0.9)


def _by_start(head: bytes, expected: Format | None, name: str) -> Format:
    """Detect the format of text."""
    start = head.replace(b"\x00", b"") if b"\x00" in head else head  # UTF-16
    start = start.removeprefix(b"\xef\xbb\xbf").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")
    start = start.lstrip()
    if expected == "text" and not name.endswith((".txt", ".text", ".asc")):
        return "text"
    if expected in ("json", "notebook"):
        return expected if start[:1] in (b"{", b"[", b'"') else "text"
    if expected == "jsonl":
        return "jsonl" if JSON_LINE.search(start) else "text"
    if expected == "csv":
        return "csv"
    found: Format | None = None
    if start[:1] == b"<":
        found = _by_markup(start, expected)
    elif SUBTITLES.match(start):
        found = "subtitles"
    elif MBOX.match(start):
        found = "mbox"
    if found:
        return found
    if expected == "html":
        return "html" if TAG.search(start) else "text"
    if expected in ("mail", "mbox", None) and _is_mail(start, expected):
        return "mail"
    if expected is None and re.match(rb"[{\[]", start) and _starts_with_json(start):
        return "jsonl" if start[:1] == b"{" else "json"
    return "text"


def _by_markup(start: bytes, expected: Format | None) -> Format | None:
    if MEDIAWIKI.match(start):
        return "mediawiki"
    if WIKIEXTRACTOR.match(start):
        return "wikiextractor"
    if HTML.match(start):
        return "html"
    return "xml" if expected == "xml" or start.startswith(b"<?xml") else None


def _is_mail(start: bytes, expected: Format | None) -> bool:
    header = HEADER.match(start)
    if not header:
        return False
    known = {name.lower() for name in MAIL_HEADERS.findall(header.group())}
    return len(known) >= (1 if expected else MIN_MAIL_HEADERS)


def _starts_with_json(start: bytes) -> bool:
    """Check that a text starts with a JSON object or array, as far as its first line shows."""
    return bool(re.match(rb'\{\s*"(?:[^"\\]|\\.)*"\s*:|\[\s*[\[{"]', start))

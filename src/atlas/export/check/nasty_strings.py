"""Strings on which tokenizers have been seen to differ: spaces, newlines, bytes, special tokens."""

from itertools import chain

# Invisible characters, and those that an editor may change, are written as escapes.
GROUPS = {
    "spaces": ("", " ", "  ", "   leading", "trailing   ", "a  b   c", " " * 100),
    "other spaces": ("\u00a0", "\u2003wide\u2003", "\u3000"),
    "newlines and tabs": ("\n", "\n\n\n", " \n \n", "\t", "\t\t x", "\r\n"),
    "lines": ("line\nline\n", "\n" * 50, "def f(x):\n    return x\n"),
    "control characters": ("\x00", "a\x00b", "\x01\x02\x1b[0m", "\x7f\x80\x9f"),
    "invisible characters": ("a\u200bb", "\ufeffmark", "\ufffd"),
    "composed and decomposed letters": ("\u00e9", "e\u0301"),
    "accents": ("\u00f1and\u00fa \u00c0\u00c9\u00ce\u00d5\u00dc", "stra\u00dfe"),
    "ligatures": ("\ufb01 ligature",),
    "scripts": (
        "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440",
        "\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac",
        "\u05e2\u05d1\u05e8\u05d9\u05ea",
        "\u0627\u0644\u0639\u0631\u0628\u064a\u0629",
        "\u0939\u093f\u0928\u094d\u0926\u0940",
        "\u0e44\u0e17\u0e22",
        "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8",
        "\ud55c\uad6d\uc5b4",
    ),
    "outside the Basic Multilingual Plane": (
        "\U0001d518\U0001d52b\U0001d526",
        "\U0001f600",
        "\U0001f469\u200d\U0001f469\u200d\U0001f467 family",
        "\U0001f1eb\U0001f1f7\U0001f1ef\U0001f1f5",
        "\U0010ffff",
    ),
    "numbers": ("0123456789", "3.14159e-10", "1,000,000"),
    "punctuation": ("{}[]()<>|\\/`~!@#$%^&*_+-=;:'\"",),
    "special tokens of texts": ("<|endoftext|>", "a<|endoftext|>b", "<unk>", "<s></s>"),
    "special tokens of bytes and chats": ("<0x41>", "<0x0A>", "[INST] x [/INST]"),
    "words": ("camelCaseAndSNAKE_CASE", "ThE qUiCk", "antidisestablishmentarianism"),
    "repetitions": ("a" * 28, "x" * 1000, "ab " * 300),
}
NASTY_STRINGS = tuple(chain.from_iterable(GROUPS.values()))

"""The roles of special tokens: which one begins a text, ends it, fills a batch.

A Hugging Face folder spreads them over several files, a GGUF file has keys for them. Atlas writes
them to tokenizer_config.json, in the words of Hugging Face.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.errors import AtlasError
from atlas.pipeline.files import write_json

CONFIG_FILE, TEMPLATE_FILE = "tokenizer_config.json", "chat_template.jinja"
NAMES_FILE, MODEL_FILES = "special_tokens_map.json", ("generation_config.json", "config.json")
NAMES = ("bos", "eos", "pad", "unk")
# End of a document, as tokenizers name it; else it is the token that ends a generated text.
ENDS_OF_TEXT = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|endofdocument|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)
# Special tokens at which llama.cpp ends a text whatever the file says.
ENDS_OF_GENERATION = frozenset(
    (  # noqa: SIM905
        "<|endoftext|> <|end_of_text|> <|eot_id|> <|eom_id|> <|im_end|> <|end|> <|return|> "
        "<|call|> <end_of_turn> <EOT> _<EOT> <end_of_utterance> <|fim_pad|> <fim-pad> <fim_pad> "
        "<PAD> <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame> <|file_sep|>"
    ).split()
)


@dataclass(frozen=True)
class Roles:
    """Special tokens of a tokenizer from elsewhere, by name."""

    bos: str | None
    eos: str  # ends a text by the source's convention, perhaps only a message
    pad: str | None
    unk: str | None
    ends: tuple[str, ...]  # each ends a generated text; eos is among them
    add_bos: bool
    chat_template: str | None = None

    @property
    def end_of_text(self) -> str:
        """The token that ends a document."""
        return next((name for name in ENDS_OF_TEXT if name in self.ends), self.eos)

    def special_names(self) -> dict[str, str]:
        """Names by role, as in tokenizer_config.json."""
        names = {f"{role}_token": getattr(self, role) for role in NAMES}
        return {role: name for role, name in names.items() if name is not None}

    def settings(self) -> dict[str, Any]:
        """Content of tokenizer_config.json."""
        names = self.special_names()
        return {**names, "add_bos_token": self.add_bos, "end_tokens": list(self.ends)}

    def identity(self) -> bytes:
        """The roles as bytes, for a hash; a chat template changes no token."""
        return json.dumps(self.settings(), sort_keys=True).encode()

    def write(self, folder: Path) -> None:
        """Write tokenizer_config.json, and the chat template if there is one."""
        write_json(folder / CONFIG_FILE, self.settings())
        if self.chat_template is not None:
            (folder / TEMPLATE_FILE).write_text(self.chat_template, encoding="utf-8", newline="\n")

    @classmethod
    def read(
        cls, folder: Path, ids: Mapping[str, int], special: Collection[str], first: str | None
    ) -> "Roles":
        """Read the files next to a tokenizer in a Hugging Face folder, or one that Atlas wrote.

        Args:
            folder: with any of tokenizer_config.json, special_tokens_map.json,
                generation_config.json, config.json and chat_template.jinja.
            ids: of every piece.
            special: names of the special tokens.
            first: the token that the tokenizer itself puts before a text.
        """
        config = _json(folder / CONFIG_FILE)
        named = {
            role: _content(config.get(f"{role}_token"))
            or _content(_json(folder / NAMES_FILE).get(f"{role}_token"))
            for role in NAMES
        }
        pieces = {identity: piece for piece, identity in ids.items()}
        by_id: dict[str, list[str]] = {role: [] for role in NAMES}
        for file in MODEL_FILES:
            for role, names in by_id.items():
                given = _json(folder / file).get(f"{role}_token_id")
                numbers = given if isinstance(given, list) else [given]
                found = (pieces.get(each) for each in numbers if isinstance(each, int))
                names += [name for name in found if name is not None and name in special]
        for role, names in by_id.items():
            named[role] = named[role] or next(iter(names), None)
        named["bos"] = named["bos"] or first
        ends = by_id["eos"]
        if isinstance(listed := config.get("end_tokens"), list):
            ends = [each for each in listed if isinstance(each, str)]
        template = _template(folder, config)
        given = config.get("add_bos_token")
        add_bos = given if isinstance(given, bool) else first is not None
        return cls.checked(
            named, ends, ids, special, add_bos=add_bos, chat_template=template, file=str(folder)
        )

    @classmethod
    def checked(
        cls,
        named: Mapping[str, str | None],
        ends: Collection[str],
        ids: Mapping[str, int],
        special: Collection[str],
        *,
        add_bos: bool,
        chat_template: str | None,
        file: str,
    ) -> "Roles":
        """Complete roles by the names of well-known tokens; each must be in the vocabulary."""
        known = {role: name if name in ids else None for role, name in named.items()}
        eos = known["eos"] or next((name for name in ENDS_OF_TEXT if name in special), None)
        if eos is None:
            raise AtlasError(
                f"{file}: no token ends a text: name one in {CONFIG_FILE} next to the tokenizer, "
                'as {"eos_token": "<|endoftext|>"}; in a GGUF file, tokenizer.ggml.eos_token_id '
                "names it"
            )
        by_name = ENDS_OF_GENERATION.intersection(special)
        every = {eos, *by_name, *(name for name in ends if name in ids)}
        in_order = tuple(sorted(every, key=ids.__getitem__))
        bos, pad, unk = (known[role] for role in ("bos", "pad", "unk"))
        return cls(bos, eos, pad, unk, in_order, add_bos and bos is not None, chat_template)


def role_files(folder: Path) -> list[str]:
    """The names of the files in a folder that roles are read from."""
    names = (CONFIG_FILE, NAMES_FILE, *MODEL_FILES, TEMPLATE_FILE)
    return [name for name in names if (folder / name).is_file()]


def _json(path: Path) -> dict[str, Any]:
    """Content of a file; nothing if there is no such file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise AtlasError(f"{path}: not a JSON file ({error}); download it again") from None
    return content if isinstance(content, dict) else {}


def _content(token: object) -> str | None:
    """The name of a token, which may be described by its name alone or by a table."""
    name = token.get("content") if isinstance(token, dict) else token
    return name if isinstance(name, str) and name else None


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own, or the (default) one in tokenizer_config.json."""
    try:
        return (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise AtlasError(f"{folder / TEMPLATE_FILE}: not a text ({error})") from None
    return next(_templates(config.get("chat_template")), None)


def _templates(template: object) -> Iterator[str]:
    if isinstance(template, str):
        yield template
    elif isinstance(template, list):
        entries = [each for each in template if isinstance(each, dict)]
        named = {str(each.get("name")): each.get("template") for each in entries}
        texts = (named.get("default"), *named.values())
        yield from (text for text in texts if isinstance(text, str) and text)

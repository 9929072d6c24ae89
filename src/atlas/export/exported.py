"""What an export gives beside its files: metrics, speeds, and a table of what each file costs."""

from dataclasses import dataclass, field

from atlas.export.check.quality import Quality

Metric = int | float | str


@dataclass(frozen=True)
class FileRow:
    """A row of the table of GGUF files; the first one is the model itself.

    Attributes:
        file: its name.
        format: of GGUF, or ``pytorch``.
        bytes: its size.
        bits_per_weight: of that.
        perplexity: over held-out text, computed by its own runtime.
        kl_divergence: from the F32 file's predictions, nats a token.
        top_1_agreement: share of the tokens before which both find the same one likeliest.
        types: of its matrices, the commonest first.
    """

    file: str
    format: str
    bytes: int
    bits_per_weight: float
    perplexity: float
    kl_divergence: float
    top_1_agreement: float
    types: str

    @classmethod
    def of(
        cls, file: str, name: str, size: int, parameters: int, quality: Quality, types: str
    ) -> "FileRow":
        """A measured file."""
        return cls(
            file,
            name,
            size,
            round(8 * size / parameters, 2),
            quality.perplexity,
            quality.kl_divergence,
            quality.top_1_agreement,
            types,
        )


@dataclass
class Exported:
    """What was found while exporting.

    Attributes:
        metrics: of the stage.
        speeds: of the runtimes.
        files: a row for the model, and for each GGUF file that stays.
    """

    metrics: dict[str, Metric] = field(default_factory=dict)
    speeds: dict[str, float] = field(default_factory=dict)
    files: list[FileRow] = field(default_factory=list)

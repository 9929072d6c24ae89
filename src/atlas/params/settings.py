"""Settings of a run that are not params: the environment variables ``ATLAS_*``.

They say where and how fast Atlas runs. None of them changes a result, so none is in params.yaml.
"""

import os
from typing import Literal

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from atlas.errors import AtlasError, did_you_mean

PREFIX = "ATLAS_"


class Settings(BaseSettings):
    """The environment variables ``ATLAS_*``, checked."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    device: str | None = Field(None, description="a device of PyTorch: cpu, cuda, cuda:1, mps")
    compile: Literal["auto", "0", "1"] = Field("auto", description="0, 1 or auto")
    nproc: PositiveInt = Field(1, description="a number of processes, 1 or more")
    strategy: Literal["ddp", "fsdp"] = Field("ddp", description="ddp or fsdp")
    readers: NonNegativeInt | None = Field(None, description="a number of processes, 0 for none")
    checkpoint_seconds: FiniteFloat = Field(60, ge=0, description="a number of seconds, 0 or more")
    parallel: str | None = Field(
        None, description="a number of processes, dask:ADDRESS or ray:ADDRESS"
    )
    mirror: str | None = Field(None, description="a folder or URL that holds your downloads")
    api_key: str | None = Field(None, description="the key that clients of the server must send")
    debug: bool = Field(False, description="1 for tracebacks")  # errors.py reads it directly
    needs_browser: bool = Field(False, description="1 in CI: never skip the tests in a browser")


def settings() -> Settings:
    """Read the environment variables ``ATLAS_*``."""
    known = [f"{PREFIX}{field.upper()}" for field in Settings.model_fields]
    for name in os.environ:
        if not name.startswith(PREFIX) or name in known:
            continue
        if hint := did_you_mean(name, known, cutoff=0.8):
            raise AtlasError(f"{name} is not a setting of Atlas{hint}")
    try:
        return Settings()
    except ValidationError as error:
        details = error.errors()[0]
        raise invalid_setting(str(details["loc"][0]), details["input"]) from None


def invalid_setting(name: str, value: object) -> AtlasError:
    """Make the error for a setting whose value cannot be used."""
    allowed = Settings.model_fields[name].description
    return AtlasError(f"{PREFIX}{name.upper()}={value}: must be {allowed}")

"""Where a model runs: ``ATLAS_DEVICE``, else a CUDA GPU if there is one, else the CPU."""

import os

import torch

from atlas.errors import TORCHRUN, AtlasError


def choose_device() -> torch.device:
    """The device to run on; of several processes on a machine each has a GPU of its own.

    Raises:
        AtlasError: ``ATLAS_DEVICE`` names one that is not there, or one for all of them.
    """
    name = os.environ.get("ATLAS_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if TORCHRUN in os.environ and name.startswith("cuda"):
        if name != "cuda":
            raise AtlasError(f"ATLAS_DEVICE={name}: several processes need a GPU each: give cuda")
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        found = ", ".join(["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))])
        raise AtlasError(f"ATLAS_DEVICE={name}: no such device here (there is {found})") from None
    return device

"""The stages of the pipeline, one script each: ``python -m stages.train``.

An editable install makes ``import atlas`` find the checkout it was installed from, also when
DVC runs an experiment in a copy of the project. The stages of a checkout therefore put their
own ``src`` first, and refuse to run with the code of another one. What DVC has removed comes back
even if a stage can't be imported.
"""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT / "src"))

import atlas  # noqa: E402

if CHECKOUT not in Path(atlas.__file__).resolve().parents:
    sys.exit(f"error: stages of {CHECKOUT} would run the code of {atlas.__file__}")

from atlas.pipeline.restore import guard_stage  # noqa: E402

guard_stage()

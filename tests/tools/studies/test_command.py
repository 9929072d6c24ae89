"""What ``atlas study`` refuses."""

import pytest
import yaml

from atlas.errors import AtlasError
from atlas.tools.studies.command import write_study

PLAN = {
    "question": "Which learning rate?",
    "vary": {"train.lr": [1e-3, 4e-3]},
    "seeds": [1],
    "measures": ["evaluate.val_loss"],
    "scale": "log",
}


def test_without_any_run_a_page_stays_as_it_is(project):
    (project / "studies/lr.yaml").write_text(yaml.safe_dump(PLAN))
    page = project / "docs/studies/lr.md"
    page.parent.mkdir(parents=True)
    page.write_text("the table of another clone")
    with pytest.raises(AtlasError, match="study lr: no run of it"):
        write_study(project, "lr")
    assert page.read_text() == "the table of another clone"

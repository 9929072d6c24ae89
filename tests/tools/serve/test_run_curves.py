import pytest

from atlas.tools.serve.run_curves import MOST_POINTS, curves_of


def test_curves_are_read_and_thinned(tmp_path):
    rows = [f"{step},{5 - step / 1000},{5 - step / 1000}" for step in range(1, 1201)]
    (tmp_path / "train.csv").write_text("\n".join(["step,loss,loss_average", *rows]))
    (tmp_path / "val.csv").write_text("step,loss\n0,7.5\n100,4.5\n")
    curves = curves_of(tmp_path)
    assert curves["val"] == [[0, 7.5], [100, 4.5]]
    assert curves["train"][0] == [1, 4.999]
    assert len(curves["train"]) == len(curves["train_average"]) <= MOST_POINTS


@pytest.mark.parametrize("content", ["", "step\n1\n", "step,loss\n1,x\n", "step,loss\n1\n"])
def test_what_is_no_curve_is_left_out(tmp_path, content):
    (tmp_path / "val.csv").write_text(content)
    assert curves_of(tmp_path) == {}
    assert curves_of(tmp_path / "nothing") == {}
    assert curves_of(None) == {}

import time

import pytest

from atlas.corpora.formats import HEAD, detect, format_of, split_suffixes


@pytest.mark.parametrize(
    "unit", [b"<", b"<!--", b"<!-- x -->", b"<?xml ", b"a: b\n", b"From 1", b"1", b'{"\\\\', b" \n"]
)
@pytest.mark.parametrize("name", ["a", "a.txt", "a.html", "a.xml", "a.eml", "a.jsonl"])
def test_detection_takes_no_time_for_any_start(name, unit):
    start = time.process_time()
    detect(name, (unit * HEAD)[:HEAD])
    assert time.process_time() - start < 1


def test_suffixes_of_compression_are_removed():
    assert split_suffixes("A.TGZ") == ("a.tar", ("gzip",))
    assert split_suffixes("c4.00000-of-01024.json.gz") == ("c4.00000-of-01024.json", ("gzip",))
    assert format_of("x/.txt") is None
    assert format_of("a.b/c") is None

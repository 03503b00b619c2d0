from __future__ import annotations

import pytest

from search.errors import NasliteError, UnknownName
from search.registry import check_name, load, load_reference, unknown_name
from strategies import BUILTIN
from strategies.random_search import RandomSearch


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    text = unknown_name("strategy", "randm", ["random", "greedy"])
    assert text == "unknown strategy 'randm'; did you mean 'random'? known: greedy, random"
    with pytest.raises(UnknownName, match=f"known: {', '.join(sorted(BUILTIN))}$"):
        check_name("strategy", "strategies", "zzz", BUILTIN)


def test_a_builtin_name_loads_its_class(tmp_path):
    assert load("strategy", "strategies", "random", BUILTIN, tmp_path) is RandomSearch


def test_every_builtin_of_every_table_loads(tmp_path):
    import compressors
    import strategies
    from search import runtimes

    for group, table in (
        ("strategies", strategies.BUILTIN),
        ("compressors", compressors.BUILTIN),
        ("runtimes", runtimes.BUILTIN),
    ):
        for name in table:
            assert callable(load(group, group, name, table, tmp_path))


def test_a_file_reference_loads_under_a_private_name_and_may_import_its_neighbours(tmp_path):
    (tmp_path / "helper_of_mine.py").write_text("VALUE = 7\n")
    (tmp_path / "storage.py").write_text(
        "from helper_of_mine import VALUE\nclass Mine:\n    value = VALUE\n"
    )
    found = load("strategy", "strategies", "storage.py:Mine", BUILTIN, tmp_path)
    assert found.value == 7
    import storage

    assert hasattr(storage, "Store")


@pytest.mark.parametrize(
    ("reference", "part"),
    [
        ("none.py:X", "does not exist"),
        ("broken.py:X", "importing broken.py failed at line 2: ZeroDivisionError"),
        ("syntax.py:X", "importing syntax.py failed at line 1: SyntaxError"),
        ("fine.py:X", "no 'X' in fine.py; its classes: Y"),
        ("fine.py", "must be file.py:Name"),
        ("no.such.module:X", "cannot import 'no.such.module'"),
    ],
)
def test_a_bad_reference_says_what_is_wrong(tmp_path, reference, part):
    (tmp_path / "broken.py").write_text("x = 1\nx / 0\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "fine.py").write_text("class Y: pass\n")
    with pytest.raises(NasliteError) as caught:
        load_reference(reference, tmp_path)
    assert part in str(caught.value)

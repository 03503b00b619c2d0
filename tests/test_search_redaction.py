from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.redaction import mapped, redactor

CLEAN = redactor(["/data/my models/a study", "relative"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot read /srv/ann/model.onnx: gone", "cannot read …/model.onnx: gone"),
        ("('/srv/ann/x.py', 3)", "('…/x.py', 3)"),
        ("error:/srv/ann/x.py", "error:…/x.py"),
        ("in /data/my models/a study/task.py", "in …/task.py"),
        ("in '/data/my models/a study'", "in '…/a study'"),
        ("sqlite:////srv/ann/naslite.db", "sqlite:///…/naslite.db"),
        ("postgresql://ann:secret@host:5432/db", "postgresql://…@host:5432/db"),
        ("postgresql+psycopg://ann:s@cret@host/db", "postgresql+psycopg://…@host/db"),
        (r"C:\Users\ann\model.onnx is locked", "…/model.onnx is locked"),
        ("models/small/x.onnx", "models/small/x.onnx"),
        ("https://example.org/a/b/c", "https://example.org/a/b/c"),
        ("12 samples/s, 1/2 of it", "12 samples/s, 1/2 of it"),
        ("<b>html</b>", "<b>html</b>"),
        ("/tmp", "/tmp"),
    ],
)
def test_paths_and_logins_are_left_out(text, expected):
    assert CLEAN(text) == expected


def test_the_home_and_the_current_folder_are_known():
    assert CLEAN(f"{Path.cwd()}/x/y.py") == "…/x/y.py"


@given(st.text(st.characters(exclude_characters="/\\")))
def test_other_texts_stay_as_they_are(text):
    assert CLEAN(text) == text


def test_a_redacted_text_has_nothing_more_to_redact():
    for text in ("/srv/ann/x", "sqlite:////srv/ann/a.db", "p://a:b@h/d"):
        assert CLEAN(CLEAN(text)) == CLEAN(text)


@dataclass(frozen=True)
class Pair:
    text: str
    rest: object


def test_every_text_in_a_value_is_changed():
    value = Pair("a", {"b": ("c", [Pair("d", 1.5)], None)})
    assert mapped(value, str.upper) == Pair("A", {"B": ("C", [Pair("D", 1.5)], None)})

"""benchmarks/compressing.py: a row for each combination of options, with true figures."""

import pytest
from click.testing import CliRunner
from conftest import REPOSITORY

from benchmarks.compressing import command

TOY = str(REPOSITORY / "tests" / "assets" / "toy_task.py:Toy")


def rows(*arguments):
    result = CliRunner().invoke(command, [TOY, *arguments], catch_exceptions=False)
    lines = [line for line in result.output.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines], result


def test_there_is_a_row_for_each_combination():
    found, result = rows("structured_pruning", "ratio=0.25,0.5", "importance=l1,l2")
    assert found[0] == ["ratio", "importance", "drop", "parameters", "size", "zstd"]
    assert [row[:2] for row in found[1:]] == [
        ["0.25", "l1"],
        ["0.25", "l2"],
        ["0.5", "l1"],
        ["0.5", "l2"],
    ]
    assert float(found[1][3]) > float(found[3][3])
    assert "accuracy 1.0000" in result.output


def test_zeros_are_seen_in_the_packed_size_only():
    found, _ = rows("unstructured_pruning", "method=l1_layer", "sparsity=0.9")
    _, _, _, parameters, size, packed = found[1]
    assert parameters == size == "1.000"
    assert float(packed) < 0.5


def test_what_changes_the_exported_file_has_rows_too():
    found, _ = rows("weight_clustering", "clusters=4,16")
    assert [row[0] for row in found[1:]] == ["4", "16"]
    assert float(found[1][-1]) < float(found[2][-1]) < 0.6
    drops = [float(row[1].split()[0]) for row in found[1:]]
    assert drops[1] < drops[0]


@pytest.mark.parametrize(
    ("argument", "message"),
    [("ratioo=0.5", "unknown knob 'ratioo'"), ("ratio", "must be KEY=VALUE")],
)
def test_a_wrong_option_is_one_clear_line(argument, message):
    _, result = rows("structured_pruning", argument)
    assert result.exit_code == 2
    assert message in result.output

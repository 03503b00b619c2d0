"""Every architecture of the zoo goes through pruning, export and int8."""

from __future__ import annotations

import pytest
import torch
import zoo
from click.testing import CliRunner

from benchmarks.covering import HEADER, RATIO, Coverage, command, cover
from compressors.inspect import weights_digest


@pytest.mark.parametrize("name", zoo.MODELS)
def test_a_model_of_the_zoo_is_built_the_same_way_each_time_and_tells_samples_apart(name):
    model = zoo.build(name)
    assert weights_digest(model) == weights_digest(zoo.build(name))
    images = zoo.pictures(16, 2)
    with torch.no_grad():
        outputs = model(images)
    assert outputs.shape[0] == 16
    assert 0.1 < (outputs - outputs.mean(0)).std() < 2
    assert len(outputs.argmax(1).unique()) > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.MODELS)
def test_an_architecture_is_pruned_exported_quantized_and_run(name, tmp_path):
    found = cover(name, {"ratio": RATIO, "scope": "uniform"}, tmp_path)
    assert found.problem == ""
    assert found.int8_ratio < found.size_ratio < 1


def test_rows_say_what_was_found():
    done = Coverage("good", (1000, 600), 0.6, 0.2, 0.05).row()
    assert dict(zip(HEADER, done, strict=True)) == {
        "model": "good",
        "parameters": "1,000 -> 600",
        "left": "0.60",
        "size, fp32": "0.60",
        "size, int8": "0.20",
        "int8 error": "0.050",
        "result": "yes",
    }
    assert Coverage("poor", (1000, 950), 0.9, 0.3, 0.1).row()[-1].startswith("loses less than 10%")
    assert not Coverage("noisy", (1000, 600), 0.9, 0.3, 0.51).goes_through
    refused = Coverage("none", (1000,), refusal="refused: structured_pruning: no")
    assert not refused.goes_through
    assert refused.row() == ["none", "1,000", "", "", "", "", "refused: structured_pruning: no"]


@pytest.mark.slow
def test_the_command_prints_a_table_and_what_goes_through():
    done = CliRunner().invoke(command, ["--model", "plain CNN", "--ratio", "0.5"])
    assert done.exit_code == 0, done.output
    assert "1 of 1 go through" in done.output
    (row,) = [line for line in done.output.splitlines() if line.startswith("| plain CNN")]
    assert row.endswith(" yes |")

"""Readers beside a study at full speed: no error, no half trial."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

from doubles import control, new_study

from storage import Store

READERS = 10
STUDIES = 9  # one after the other, so that the readers meet some that run
METRICS = 8  # of a whole trial; one more of those that were timed again

# Polls until it is told to end; prints how often it read, and whatever it must not see.
READER = """
import json, sys, threading
from search.report import as_json
from search.results import StudyResults
from storage import Store
url, whole, ended, reads, wrong = sys.argv[1], int(sys.argv[2]), threading.Event(), 0, []
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
print("ready", flush=True)
while not ended.wait(0.05 if reads else 0):
    store = Store(url, create=False)
    try:
        if reads % 2:
            store.studies()
            continue
        name = store.studies()[reads // 2 % 10].study.name
        results = StudyResults(store, name)
        best = results.best()
        as_json([row.to_json() for row in best])
        complete = [r for r in results.rows() if r.trial.state == "complete"]
        wrong += [
            r.number
            for r in (*best, *complete)
            if len(r.trial.measurements) not in (whole, whole + 1) or not r.trial.artifact
        ]
    finally:
        reads += 1
        store.close()
print(json.dumps({"reads": reads, "wrong": wrong}))
"""


def test_ten_readers_beside_a_study_see_no_error_and_no_half_trial(tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    store = Store(url)
    names = [f"s{n}" for n in range(STUDIES)]
    for name in ("s", *names):
        new_study(store, name, trials=19)
    program = f"import sys; sys.path[:] = {sys.path!r}\n{READER}"
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", program, url, str(METRICS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(READERS)
    ]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    trials = [trial for name in ("s", *names) for trial in control(store, name)]
    told = [reader.communicate("") for reader in readers]
    assert Counter(trial.state for trial in trials) == {"complete": 20 * (1 + STUDIES)}
    assert {len(trial.measurements) for trial in trials} == {METRICS, METRICS + 1}
    assert [err for _, err in told if err] == []
    answers = [json.loads(out) for out, _ in told]
    assert all(answer["reads"] >= 2 for answer in answers)
    assert [answer["wrong"] for answer in answers] == [[]] * READERS

"""Runs `toy.yaml`, and damages cached stages and the baseline's file between its trials.

damaging_run.py truncate|flip '{"TRIAL": [AN EARLIER TRIAL, A STAGE OF IT]}'
"""

import json
import sys
from pathlib import Path

from faulty_acts import damage, is_armed

from search import run
from search.observer import Observer

FILES = Path("naslite.db.files")


class Damaging(Observer):
    def __init__(self, how, damages):
        self.how = how
        self.damages = damages
        self.keys = {}

    def ended(self, trial):
        for stage in trial.stages:
            self.keys[trial.number, stage.name] = stage.key
        if not is_armed():
            return
        if trial.number == 0:
            self.damage(FILES / "artifacts", trial.artifact.sha256)
        if str(trial.number) in self.damages:
            self.damage(FILES / "stages", self.keys[tuple(self.damages[str(trial.number)])])

    def damage(self, root, key):
        (path,) = [p for p in (root / key[:2] / key).iterdir() if p.name != "entry.json"]
        damage(path, self.how)
        print(f"damaged {path}", flush=True)


if __name__ == "__main__":
    run("toy.yaml", observer=Damaging(sys.argv[1], json.loads(sys.argv[2])))

"""Waiting until a search in the background has begun."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from conftest import ASSETS
from databases import copy_old

from search import detach
from search.cli import options
from search.errors import NasliteError
from storage import Store
from storage.lease import new_owner
from storage.testing import new_study


def nothing(folder: Path) -> None:
    pass


def old(folder: Path) -> None:
    copy_old(ASSETS / "schema_1.db", folder)


def foreign(folder: Path) -> None:
    (folder / "naslite.db").write_text("not a database at all" * 100)


def half_made(folder: Path) -> None:
    (folder / "naslite.db").touch()


def without_the_study(folder: Path) -> None:
    Store(f"sqlite:///{folder / 'naslite.db'}").close()


def damaged(folder: Path) -> None:
    without_the_study(folder)
    with closing(sqlite3.connect(folder / "naslite.db")) as connection, connection:
        connection.execute("DROP TABLE studies")


@pytest.mark.parametrize("make", [nothing, old, foreign, half_made, without_the_study, damaged])
def test_a_store_that_cannot_be_asked_yet_does_not_end_the_wait(
    make: Callable[[Path], None], tmp_path
):
    """The search itself says what is wrong, in its log, which is shown once it has ended."""
    make(tmp_path)
    url = f"sqlite:///{tmp_path / 'naslite.db'}"
    with pytest.raises(NasliteError, match=r"^No such option.*--nonsense"):
        detach.start(["run", "--nonsense"], url=url, study="s")
    assert not detach._is_owned_by(os.getpid(), url, "s")


def test_ctrl_c_while_waiting_says_that_the_search_goes_on(tmp_path, capsys):
    url = f"sqlite:///{tmp_path / 'naslite.db'}"

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    with closing(Store(url)) as store:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        handled = signal.signal(signal.SIGALRM, press)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        try:
            with pytest.raises(detach.StillRunning) as caught:  # it lasts as long as the study
                options.start_detached(["logs", "s", "-f", "--store", url], {}, url=url, study="s")
        finally:
            signal.signal(signal.SIGALRM, handled)
        process = psutil.Process(caught.value.process)
        assert process.status() != psutil.STATUS_ZOMBIE
        assert os.getpgid(process.pid) != os.getpgid(0), "the terminal's Ctrl-C does not reach it"
        assert capsys.readouterr().err == (
            f"study s goes on in the background as process {process.pid}; `naslite stop s"
            f" --store {url}` ends it once it has begun, `kill {process.pid}` at any time\n"
        )
        store.release(study, owner, "finished")
        assert os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) == 0

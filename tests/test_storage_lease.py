"""A controller that slept past its lease cannot write a byte when it wakes up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from children import until
from conftest import REPOSITORY
from databases import needs_postgres, own_postgres, rows

from storage import Outcome, Store, StudyBusy
from storage.lease import is_alive, new_owner
from storage.testing import dead_owner, new_study

# A controller that proposes, sleeps where it is told to, and then tries every write there is.
CONTROLLER = """
import sys
from pathlib import Path
from storage import Outcome, Store, StudyBusy
from storage.lease import LEASE_S, new_owner
from storage.testing import new_study

assert LEASE_S == 0.5
store, owner = Store(sys.argv[1], files=Path(sys.argv[2])), new_owner()
study = store.create_study(new_study("s"), owner)
store.add_request(study, "stop")
(request,) = store.requests(study)
store.propose(study, owner, 1, {}, "key")
store.propose(study, owner, 2, {}, "key")
print("ready", flush=True)
sys.stdin.readline()
for write in (
    lambda: store.finish(study, owner, 1, Outcome("failed", "why")),
    lambda: store.propose(study, owner, 3, {}, "key", study_memo={"a": 1}),
    lambda: store.restart(study, owner, 1, died=True),
    lambda: store.handle_request(study, owner, request, 3),
    lambda: store.extend(study, owner, request, 9, None, 3),
    lambda: store.enqueue(study, owner, request, [(4, {}, "key", "enqueued")]),
    lambda: store.set_budget(study, owner, 9, None, 3),
    lambda: store.renew(study, owner),
    lambda: store.release(study, owner, "finished"),
):
    try:
        write()
    except StudyBusy as error:
        print(error, flush=True)
    except ValueError:
        print("wrong", flush=True)
    else:
        print("written", flush=True)
"""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def url(request, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'naslite.db'}"
        return
    with own_postgres() as url:
        yield url


@pytest.fixture
def controller(url: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, url, str(tmp_path / "files")],
        cwd=REPOSITORY,
        env={**os.environ, "NASLITE_LEASE_S": "0.5"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_a_controller_that_slept_past_its_lease_cannot_write(controller, url, tmp_path):
    store, owner = Store(url, files=tmp_path / "files"), new_owner()
    controller.send_signal(signal.SIGSTOP)
    until(lambda: not store.is_live(store.study("s")))
    study = store.study("s")
    assert study.state == "interrupted"
    store.claim(study, owner)
    store.restart(study, owner, 1)
    store.finish(study, owner, 2, Outcome("failed", "other"))
    before = rows(url)

    assert controller.stdin is not None
    assert controller.stdout is not None
    controller.stdin.write("go on\n")
    controller.stdin.flush()
    controller.send_signal(signal.SIGCONT)
    said = [controller.stdout.readline() for _ in range(9)]
    assert controller.wait(30) == 0
    assert set(said) == {"study 's' was taken over or removed; this controller stops\n"}
    assert rows(url) == before
    store.finish(study, owner, 1, Outcome("failed", "mine"))
    assert [t.cause for t in store.trials(study)] == ["mine", "other"]
    store.close()


def test_a_controller_that_nobody_replaced_goes_on_after_its_lease(controller, url, tmp_path):
    store = Store(url, files=tmp_path / "files")
    controller.send_signal(signal.SIGSTOP)
    until(lambda: not store.is_live(store.study("s")))
    assert controller.stdin is not None
    assert controller.stdout is not None
    controller.stdin.write("go on\n")
    controller.stdin.flush()
    controller.send_signal(signal.SIGCONT)
    said = [controller.stdout.readline().strip() for _ in range(9)]
    assert said == ["written", "written", "wrong", *6 * ["written"]]
    assert [(t.number, t.state) for t in store.trials(store.study("s"))] == [
        (1, "failed"),
        (2, "queued"),
        (3, "queued"),
        (4, "queued"),
    ]
    store.close()


def test_a_process_of_another_pid_namespace_is_not_looked_for_here():
    """As in a container: its host has our name, but its processes have numbers of their own."""
    code = "from storage.lease import new_owner; print(new_owner())"
    ended = subprocess.run(
        ["unshare", "--pid", "--fork", sys.executable, "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        pytest.skip(f"no PID namespace can be made here ({ended.stderr.strip()})")
    host, pid, token = ended.stdout.strip().split("/")
    assert (host, pid) == (new_owner().split("/")[0], "1")
    gone_here = dead_owner().split("/")[1]
    assert is_alive(f"{host}/{gone_here}/{token}")
    assert not is_alive(dead_owner())


@pytest.mark.parametrize("wrong", ["a minute", "", "-1", "0", "nan", "inf"])
def test_a_wrong_length_of_the_lease_is_one_clear_line(wrong, tmp_path):
    code = "from search.cli import main; main(['ls', '--store', 'sqlite:///naslite.db'])"
    Store(f"sqlite:///{tmp_path / 'naslite.db'}").close()
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "NASLITE_LEASE_S": wrong, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        f"naslite: NASLITE_LEASE_S must be a positive number of seconds, got {wrong!r}\n"
    )


def test_a_live_study_is_neither_claimed_nor_removed(url, tmp_path):
    store, owner = Store(url, files=tmp_path / "files"), new_owner()
    study = store.create_study(new_study("s"), owner)
    before = rows(url)
    since = f"{datetime.fromtimestamp(study.claimed_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    host, pid, _ = owner.split("/")
    for use in (lambda: store.claim(study, new_owner()), lambda: store.remove("s")):
        with pytest.raises(StudyBusy) as caught:
            use()
        assert f"'s' is being run by process {pid} on {host} since {since};" in str(caught.value)
        assert "; `naslite stop s` ends it" in str(caught.value)
    assert rows(url) == before
    store.close()

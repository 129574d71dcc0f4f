"""SIGTERM, SIGHUP and SIGUSR1 end a command as Ctrl-C does: a message, the state kept, exit status 128 + n."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY

from bnn_itrd import cli
from bnn_itrd.cli.signals import _save, stoppable
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.trainer import Trainer
from bnn_itrd.training.writer import CheckpointWriter

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


@pytest.fixture(autouse=True)
def as_a_shell_starts_it() -> Iterator[None]:
    """The signals are not ignored, as they are in the background of some shells and under nohup."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_ends_a_training_with_its_state_kept(
    tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer.train_epoch

    def in_the_second_epoch(self: Trainer, *args: Any) -> dict[str, Any]:
        if self.epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args)

    monkeypatch.setattr(Trainer, "train_epoch", in_the_second_epoch)
    small = [*TINY, "--network.width=0.25", "--log.tensorboard=false", "--member=recu"]
    assert cli.main(["train", "digits", *small, f"--data.root={tiny_npz}", f"--out={tmp_path}"]) == 143
    expected = "\nbnn-itrd: stopped by SIGTERM; the same command continues from the last finished epoch\n"
    assert capsys.readouterr().err.endswith(expected)
    assert load_checkpoint(tmp_path / "recu" / "last.pt")["epoch"] == 1
    assert not list(tmp_path.rglob(".*.tmp"))


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_has_its_status(
    number: signal.Signals, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [signal.getsignal(n) for n in SIGNALS]

    def command(argv: Sequence[str]) -> int:
        os.kill(os.getpid(), number)
        return 0

    monkeypatch.setattr("bnn_itrd.cli.recipes.command", command)
    assert cli.main(["recipes"]) == 128 + number
    by = "" if number == signal.SIGINT else f" by {number.name}"
    message = f"\nbnn-itrd: stopped{by}; the same command continues from the last finished epoch\n"
    assert capsys.readouterr().err == message
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_an_ignored_signal_stays_ignored() -> None:
    """As nohup asks for."""
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_a_thread_changes_no_handlers() -> None:
    found = []

    def inside() -> None:
        with stoppable():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


# A step of the training that does not return to Python: the signal is noticed all the same.
_BUSY = """
import hashlib, os, threading
from bnn_itrd.cli.signals import stoppable

with stoppable():
    threading.Timer(0.2, os.kill, (os.getpid(), {number})).start()
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2_000_000_000)  # half an hour
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_long_step_ends_the_process_at_once(number: signal.Signals) -> None:
    code = _BUSY.format(number=int(number))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 128 + number and "continues from the last finished epoch" in done.stderr


def test_an_epoch_in_memory_is_written_before_the_process_ends(tmp_path: Path) -> None:
    """What a step that does not return to Python keeps the main thread from writing, the watching thread writes."""
    writer = CheckpointWriter(tmp_path, 3600)
    for epoch in (1, 2):  # the first is written at once, the second waits
        writer.keep({"last.pt": {"epoch": epoch, "identity": {}, "objective": {}}})
    writer._finish()
    assert load_checkpoint(tmp_path / "last.pt")["epoch"] == 1
    thread = threading.Thread(target=_save)
    thread.start()
    thread.join()
    assert load_checkpoint(tmp_path / "last.pt")["epoch"] == 2
    writer.close()


def test_a_forked_worker_has_handlers_of_its_own() -> None:
    """What is sent to it alone must not end its parent."""
    before = [signal.getsignal(n) for n in SIGNALS]
    with stoppable():
        child = os.fork()
        if child == 0:
            own = signal.set_wakeup_fd(-1) == -1 and [signal.getsignal(n) for n in SIGNALS] == before
            os.kill(os.getpid(), signal.SIGTERM if own else signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGTERM

"""A process that has imported everything and runs commands in copies of itself, which it kills where it is told to.

Reads a line of JSON for each command, and answers with one. A copy counts what it does to the files of a folder, and
ends itself by SIGKILL in front of the event it is told, or after a time.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

# Seconds after which a command stands still; it is then killed, and that is seen as its status.
_STANDS_STILL = 900.0
_WRITES = os.O_WRONLY | os.O_RDWR
# Of Python's audit events: what makes, moves and removes a file. (mkdir and chmod lose nothing.)
_MOVES = ("os.rename", "os.remove", "os.truncate", "os.link", "os.symlink")


class Watch:
    """Counts the events below a folder; the process dies in front of event number `kill`.

    torn: where that is a rename, half of the new file is cut off first, as if its bytes had not all been written.
    """

    def __init__(self, folder: str, kill: int | None, torn: bool) -> None:
        self.folder, self.kill, self.torn = folder, kill, torn
        self.events: list[str] = []
        self.lock = threading.RLock()
        self.dying = False

    def __call__(self, event: str, values: tuple[Any, ...]) -> None:
        written = event == "open" and isinstance(values[2], int) and values[2] & _WRITES
        if self.dying or not (written or event in _MOVES):
            return
        path = os.fspath(values[0]) if isinstance(values[0], (str, os.PathLike)) else ""
        if not path.startswith(self.folder):
            return
        with self.lock:
            if len(self.events) == self.kill:
                self.dying = True
                if self.torn and event == "os.rename":
                    os.truncate(path, os.path.getsize(path) // 2)
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
            self.events.append(f"{event} {os.path.relpath(path, self.folder)}")


def _child(task: dict[str, Any], answer: int) -> None:
    from bnn_itrd.cli import main

    log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    watch = Watch(task["folder"], task.get("kill"), task.get("torn", False))
    sys.addaudithook(watch)
    if task.get("moment") is not None:
        signal.setitimer(signal.ITIMER_REAL, task["moment"])
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    status = 70
    try:
        status = main(task["argv"])
    finally:
        sys.stdout.flush()
        os.write(answer, json.dumps({"status": status, "events": watch.events}).encode())
        os._exit(0)


def _run(task: dict[str, Any]) -> dict[str, Any]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            _child(task, writer)
        finally:
            os._exit(71)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        if not select.select([pipe], [], [], _STANDS_STILL)[0]:
            os.kill(pid, signal.SIGKILL)
        told = pipe.read()
    _, ended = os.waitpid(pid, 0)
    if told:
        return dict(json.loads(told))
    return {"status": -os.WTERMSIG(ended) if os.WIFSIGNALED(ended) else os.WEXITSTATUS(ended), "events": []}


def main() -> None:
    """Answers until its input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
    import bnn_itrd.cli.run
    import bnn_itrd.cli.sweep
    import bnn_itrd.cli.train
    import bnn_itrd.experiments.sweep
    import bnn_itrd.runs.run  # noqa: F401

    print("{}", file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main()

"""The class that runs a sweep: it trains every point of a grid in its own folder, and goes on if one of them fails."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.train import FabricConfig
from bnn_itrd.config.trees import differences, to_dict
from bnn_itrd.data.splits import ImageData
from bnn_itrd.errors import Unfinished, UserError, unknown
from bnn_itrd.experiments.grid import Point
from bnn_itrd.experiments.grid_check import check_points
from bnn_itrd.experiments.sweep_files import point_record, read_result, write_sweep
from bnn_itrd.files import write_json
from bnn_itrd.runs.identity import data_identity, teacher_hash
from bnn_itrd.runs.lock import exclusive_folder
from bnn_itrd.runs.member import FIRST_STAGE, Member, train_member
from bnn_itrd.runs.teachers import load_given_teacher, load_teacher
from bnn_itrd.training.checkpoint import matching_state
from bnn_itrd.training.evaluation import evaluate
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.precision import settle_precision
from bnn_itrd.words import counted

__all__ = ["Sweep", "reference_of"]


def reference_of(points: Sequence[Point], wanted: str | None = None) -> str:
    """Returns the name of the student or table row with which a sweep's table compares the others.

    It is `wanted` if that is given, otherwise the first student without a teacher, or the first student; if there is
    only one student, its first row. Raises UserError if `wanted` is neither a student nor a row of the sweep.
    """
    students = list(dict.fromkeys(p.student for p in points))
    rows = list(dict.fromkeys(p.row for p in points))
    if wanted is not None:
        if wanted not in [*students, *rows]:
            raise unknown("--reference", wanted, [*students, *rows])
        return wanted
    if len(students) == 1:
        return rows[0]
    plain = [p.student for p in points if not p.member.distill.needs_teacher]
    return plain[0] if plain else students[0]


def _in_one_precision(points: Sequence[Point], out: Path) -> tuple[list[Point], list[str]]:
    """Replaces the precision 'auto' by one choice for all trainings; returns (points, lines that explain the choice).

    If some training of the sweep has begun before, its precision is used.
    """
    open_ones = [p for p in points if p.config.train.precision == "auto"]
    students = [folder for p in open_ones for folder in (out / p.name, out / p.name / FIRST_STAGE)]
    teachers = [out / "teachers" / p.teacher for p in points if p.config.teacher_train.precision == "auto"]
    settled = [settle_precision(p.config, teacher=teachers, students=students) for p in points]
    notes = [f"precision: {line}" for _, lines in settled for line in lines.values()]
    made = [dataclasses.replace(p, config=config) for p, (config, _) in zip(points, settled, strict=True)]
    return made, list(dict.fromkeys(notes))


class Sweep:
    """A sweep: it trains a list of points (a student with one choice of the grid's values) in the folder `out`.

    Call `check` first, which finds errors in all points before any training, and then `run`. A point is trained in
    OUT/NAME, which has a result.json when it is done. Each different teacher is trained once, in OUT/teachers/NAME.
    The tables sweep.json, sweep.csv and sweep.md are written whenever the state of a point changes.
    recipe: the recipe's name; reference: see `reference_of`; trust: True: a user's code may be imported though only the
    folder of a given teacher names it.
    """

    def __init__(self, points: Sequence[Point], out: Path, *, recipe: str, reference: str, trust: bool = False) -> None:
        self.points, self._notes = _in_one_precision(points, out)
        self.out, self.recipe, self.reference = out, recipe, reference
        self.trust = trust
        self.records: dict[str, dict[str, Any]] = {}
        self._data: dict[DataConfig, ImageData] = {}
        self._fabrics: dict[tuple[FabricConfig, str], Fabric] = {}
        self._teachers: dict[str, Member] = {}
        self._failed_teachers: dict[str, str] = {}
        self._deadline: float | None = None

    def check(self) -> None:
        """Checks all trainings of the sweep before the first begins. Raises UserError, with the name of a wrong one."""
        self._data = check_points(self.points, trust=self.trust)
        for point in self.points:
            try:
                self._check_folder(point)
            except UserError as error:
                raise UserError(f"{point.name}: {error}") from error

    def _check_folder(self, point: Point) -> None:
        """Raises UserError if the folder of a training, or of its teacher, has results of other settings."""
        data = data_identity(self._data[point.config.data])
        done, last = read_result(self.out / point.name), self.out / point.name / "last.pt"
        given = {**to_dict(point.member), **data}
        if done is not None:
            saved = {k: v for k, v in done["identity"].items() if k != "teacher_sha256"}
            if lines := differences(saved, given):
                raise UserError(
                    f"{last.parent} belongs to another configuration; choose another --out, or give the same "
                    "settings:\n  " + "\n  ".join(lines)
                )
        elif last.exists():
            matching_state(last, given, later=("teacher_sha256",))
        teacher = self.out / "teachers" / point.teacher / "last.pt"
        if point.trains_teacher and teacher.exists():
            matching_state(teacher, {**to_dict(point.teacher_member), **data})

    def run(self, say: Callable[[str], None] = print) -> dict[str, Any]:
        """Runs the trainings of the sweep that are not done yet, and returns the content of sweep.json.

        If a training fails, its error is recorded there and the next one begins. say: a function called with each
        line of output. Raises UserError if another process works in the folder, Unfinished if ``train.max_seconds``
        have passed: the same command then continues.
        """
        limits = [p.config.max_seconds for p in self.points if p.config.max_seconds is not None]
        self._deadline = time.monotonic() + min(limits) if limits else None
        with exclusive_folder(self.out):
            return self._run(say)

    def _run(self, say: Callable[[str], None]) -> dict[str, Any]:
        """Does the work of `run` in the locked folder."""
        for point in self.points:
            result = read_result(self.out / point.name)
            state = "waiting" if result is None else "done"
            self.records[point.name] = point_record(point, state, result)
            if result is not None and point.member.needs_teacher:
                self._find_teacher(point)
        self._check_teachers()
        waiting = [p for p in self.points if self.records[p.name]["state"] == "waiting"]
        done = sum(record["state"] == "done" for record in self.records.values())
        for line in self._notes:
            say(line)
        say(f"{counted(len(self.points), 'training')} in this sweep, {done} of them already done")
        self._write()
        for i, point in enumerate(waiting):
            self.records[point.name]["state"] = "running"
            self._write()
            started = time.perf_counter()
            try:
                result = self._train(point)
                self.records[point.name] = point_record(point, "done", result)
                seconds = time.perf_counter() - started
                say(f"{i + 1}/{len(waiting)} {point.name}: top-1 {result['top1']:.2f} %, {seconds:.1f} s")
            except Unfinished:
                self.records[point.name] = point_record(point, "waiting", None)
                self._write()
                raise
            except Exception as error:  # whatever the error is, the other points are trained
                message = _error_text(error)
                self.records[point.name] = point_record(point, "failed", None, message)
                say(f"{i + 1}/{len(waiting)} {point.name} failed: {message}")
                # The failed training may have left hooks on its teacher, so the next point has to load it again.
                self._teachers.pop(self._teacher_key(point), None)
            self._write()
        self._check_teachers()
        return self._write()

    def _fabric(self, point: Point, precision: str) -> Fabric:
        """Returns the Fabric that runs a training in a precision. Raises UserError if it has several processes."""
        key = (point.config.fabric, precision)
        if key not in self._fabrics:
            self._fabrics[key] = make_fabric(point.config.fabric, precision=precision)
        if self._fabrics[key].world_size > 1:
            raise UserError("a sweep runs in one process: leave fabric.devices and fabric.num_nodes at 1")
        return self._fabrics[key]

    def _teacher_key(self, point: Point) -> str:
        """Returns the key of a training's teacher in `_teachers`; trainings with the same teacher have the same key."""
        config = point.config
        given = (config.teacher, config.teacher_weights, config.teacher_normalization, config.data)
        return point.teacher if config.teacher is None else str(given)

    def _teacher(self, point: Point) -> Member:
        """Returns the teacher of a training, which is loaded or trained if needed. Raises UserError if that failed."""
        key = self._teacher_key(point)
        if key not in self._teachers and key not in self._failed_teachers:
            try:
                self._teachers[key] = self._make_teacher(point)
            except Unfinished:
                raise
            except Exception as error:
                self._failed_teachers[key] = _error_text(error)
        if key in self._failed_teachers:
            raise UserError(f"its teacher failed: {self._failed_teachers[key]}")
        return self._teachers[key]

    def _find_teacher(self, point: Point) -> None:
        """Loads the teacher of a training into `_teachers`, if it is given or was trained to its end before."""
        key, config, data = self._teacher_key(point), point.config, self._data[point.config.data]
        if key in self._teachers:
            return
        trust = self.trust or point.named
        if config.teacher is not None:
            self._teachers[key] = load_given_teacher(config, data, trust=trust)
            return
        folder, member = self.out / "teachers" / point.teacher, point.teacher_member
        if (folder / "last.pt").exists():
            state = matching_state(folder / "last.pt", {**to_dict(member), **data_identity(data)})
            if state["epoch"] == member.train.epochs:  # finished
                self._teachers[key] = load_teacher(str(folder), None, data, trust=trust)

    def _make_teacher(self, point: Point) -> Member:
        """Loads the teacher of a training if it exists, and otherwise trains it; returns it."""
        self._find_teacher(point)
        if (found := self._teachers.get(self._teacher_key(point))) is not None:
            return found
        data, fabric = self._data[point.config.data], self._fabric(point, point.config.teacher_train.precision)
        folder, member = self.out / "teachers" / point.teacher, point.teacher_member
        return train_member(member, data, None, fabric=fabric, out=folder, deadline=self._deadline)

    def _train(self, point: Point) -> dict[str, Any]:
        """Runs one training, writes its result.json, and returns the content, with test accuracies in percent."""
        data, member = self._data[point.config.data], point.member
        identity = {**to_dict(member), **data_identity(data)}
        teacher = None
        if member.needs_teacher:
            teacher = self._teacher(point)
            identity["teacher_sha256"] = teacher_hash(teacher.model, data)
        fabric = self._fabric(point, member.train.precision)
        folder = self.out / point.name
        trained = train_member(member, data, teacher, fabric=fabric, out=folder, deadline=self._deadline)
        fitted = trained.fitted
        assert fitted is not None
        test = fitted.final if data.val is None else evaluate(trained.model, data.test, device=fabric.device)
        result = {
            "format": 1,
            "name": point.name,
            "top1": test.top1,
            "top5": test.top5,
            "loss": test.loss,
            "epochs": len(fitted.history),
            "best": {"split": fitted.best["split"], "top1": fitted.best["top1"], "epoch": fitted.best["epoch"]},
            "seconds": sum(row["seconds"] for row in fitted.history),
            "identity": identity,
        }
        write_json(self.out / point.name / "result.json", result)
        return result

    def _check_teachers(self) -> None:
        """Marks finished trainings as failed if the teacher they learned from is not this sweep's teacher any more."""
        hashes: dict[str, str] = {}
        for point in self.points:
            key = self._teacher_key(point)
            if key in self._teachers and key not in hashes:
                hashes[key] = teacher_hash(self._teachers[key].model, self._data[point.config.data])
            result = read_result(self.out / point.name) if self.records[point.name]["state"] == "done" else None
            learned_from = None if result is None else result["identity"].get("teacher_sha256")
            if learned_from is not None and hashes.get(key, learned_from) != learned_from:
                message = f"it learned from another teacher: remove {self.out / point.name} to train it again"
                self.records[point.name] = point_record(point, "failed", None, message)

    def _write(self) -> dict[str, Any]:
        """Writes the tables of the sweep; returns the content of sweep.json."""
        return write_sweep(self.out, list(self.records.values()), recipe=self.recipe, reference=self.reference)


def _error_text(error: Exception) -> str:
    """Returns an error as one line for the user; the name of its class is left out of a UserError."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"

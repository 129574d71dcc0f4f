"""Functions that compare the images of a trained network's teacher with those that a table's cell asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.trees import to_dict
from bnn_itrd.experiments.papers.runs import FoundRun

__all__ = ["other_teacher_data", "saw_other_images"]

# The fields of a teacher's data that say which images it has seen, and those that say how.
_IMAGES, _VIEWS = ("name", "per_class", "unlabelled", "image_size"), ("val_fraction", "crop_padding", "flip")


def other_teacher_data(
    run: FoundRun, wanted: Mapping[str, Any] | None, *, student: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Returns the fields in which the data of a network's teacher differ from the wanted, field -> (there, wanted).

    A field is left out if both teachers have it from their students' data: then the students differ in the same way.
    wanted, student: the settings of the data of the wanted teacher and of its student; {} is returned if the wanted
    teacher or the network's has no data, as a network of another library.
    """
    if run.teacher is None or run.teacher.data is None or wanted is None:
        return {}
    usual = to_dict(DataConfig())
    there, own, student = ({**usual, **data} for data in (run.teacher.data, run.member["data"], student))
    return {
        name: (there[name], wanted[name])
        for name in (*_IMAGES, *_VIEWS)
        if there[name] != wanted[name] and not (there[name] == own[name] and wanted[name] == student[name])
    }


def saw_other_images(run: FoundRun, wanted: Mapping[str, Any] | None, *, student: Mapping[str, Any]) -> bool:
    """Returns whether a network's teacher was trained on other images than the wanted; arguments as above.

    It is True if nothing tells the teacher's images. How it saw them (its crops) does not matter here.
    """
    if wanted is None:
        return False
    if run.teacher is None or run.teacher.data is None:
        return True
    return any(name in _IMAGES for name in other_teacher_data(run, wanted, student=student))

"""The settings of a question-answering run, as frozen dataclasses.

The defaults come from four sources:

- The ITRD paper (Miles et al. 2022, sec. 5) uses "the same hyperparameters used in the previous experiments": alpha
  1.01 for one architecture, betas 2 and 1. It applies ITRD to the output of each student layer, "following TextBrewer",
  and adds KD on the logits.
- TextBrewer (Yang et al. 2020, its published SQuAD students) has the temperature 8, the learning rate 1e-4 and the 30
  epochs of the students.
- BERT (Devlin et al. 2019, sec. 4.2, and its published script) has the windows and the teacher's fine-tuning.
- This project chose what the ITRD paper leaves open: KD's weight, which tokens enter the statistics (`max_tokens`), the
  sum over the layers, and the batch size 32.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from bnn_itrd.config.train import MOST_EPOCHS, FabricConfig, LogConfig
from bnn_itrd.distillers.representation.itrd import ITRDConfig
from bnn_itrd.errors import UserError, require

__all__ = [
    "HiddenConfig",
    "LayerITRDConfig",
    "LogitKDConfig",
    "SquadConfig",
    "SquadDataConfig",
    "SquadTrainConfig",
    "StudentConfig",
]


@dataclass(frozen=True)
class SquadDataConfig:
    """The questions of a run, and how each, with its context, is cut into windows of tokens.

    Args:
        name: squad (your files) or tiny (made-up questions, written into the run's folder with a tiny tokenizer)
        root: folder with train-v1.1.json and dev-v1.1.json
        max_length: largest number of tokens in a window, with question and special tokens
        doc_stride: number of tokens between the starts of two windows of one context
        max_question: number of tokens after which a question is cut
        n_best: number of answers that are written for each question
        max_answer: largest number of tokens in an answer
    """

    name: Literal["squad", "tiny"] = "squad"
    root: str | None = None
    max_length: int = 384
    doc_stride: int = 128
    max_question: int = 64
    n_best: int = 20
    max_answer: int = 30

    def __post_init__(self) -> None:
        for name in ("doc_stride", "max_question", "n_best", "max_answer"):
            require(getattr(self, name) >= 1, f"data.{name}", ">= 1", getattr(self, name))
        # With [CLS] and two [SEP], a window must leave room for a full stride of context.
        least = self.max_question + self.doc_stride + 3
        rule = f">= max_question + doc_stride + 3 = {least}, since shorter windows would leave gaps between them"
        require(self.max_length >= least, "data.max_length", rule, self.max_length)


@dataclass(frozen=True)
class SquadTrainConfig:
    """How a network is trained, by AdamW; the learning rate rises linearly at first, then falls linearly to 0.

    Args:
        epochs: number of passes over the training windows
        batch_size: number of windows in a step
        lr: largest learning rate
        weight_decay: weight decay of weight matrices; biases and normalisations have none
        warmup: share of the steps in which the learning rate rises
        clip_norm: largest norm of the gradient; null means no limit
        precision: 32-true, bf16-mixed or 16-mixed; answers are always predicted in float32
        seed: seed of the windows' order, dropout, random weights, and the tokens drawn for ITRD
    """

    epochs: int = 30
    batch_size: int = 32
    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip_norm: float | None = 1.0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    seed: int = 0

    def __post_init__(self) -> None:
        require(1 <= self.epochs <= MOST_EPOCHS, "train.epochs", f"in [1, {MOST_EPOCHS}]", self.epochs)
        require(self.batch_size >= 1, "train.batch_size", ">= 1", self.batch_size)
        require(self.lr > 0, "train.lr", "> 0", self.lr)
        require(self.weight_decay >= 0, "train.weight_decay", ">= 0", self.weight_decay)
        require(0 <= self.warmup < 1, "train.warmup", "in [0, 1)", self.warmup)
        require(self.clip_norm is None or self.clip_norm > 0, "train.clip_norm", "> 0", self.clip_norm)
        require(0 <= self.seed < 2**31, "train.seed", "in [0, 2^31)", self.seed)


@dataclass(frozen=True)
class LogitKDConfig:
    """Knowledge distillation (Hinton et al. 2015) on the start and the end logits, of which the mean is taken.

    Args:
        weight: weight of the term
        tau: temperature by which the logits are divided before the softmax
    """

    weight: float = 1.0
    tau: float = 8.0

    def __post_init__(self) -> None:
        require(self.weight >= 0, "kd.weight", ">= 0", self.weight)
        require(self.tau > 0, "kd.tau", "> 0", self.tau)


# The options that ITRD had when the first checkpoints were written.
_FIRST_OF_ITRD = ("alpha", "beta_corr", "beta_mi", "max_tokens")


@dataclass(frozen=True, kw_only=True)
class LayerITRDConfig(ITRDConfig):
    """ITRD between each layer of the student and a layer of the teacher, summed (Miles et al. 2022, eq. 10).

    ITRD is a correlation and a mutual-information loss. All layers have the same options, those of `ITRDConfig`; the
    weight stays constant during the training.

    Args:
        max_tokens: largest number of tokens that the loss compares; if a batch has more, this many are drawn from it
    """

    max_tokens: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.max_tokens >= 2, "max_tokens", ">= 2")
        for name, usual in (("warmup_epochs", 0.0), ("final", 1.0)):
            rule = f"{usual}, since weights stay constant in question answering"
            self._require(getattr(self, name) == usual, name, rule)

    @property
    def name(self) -> str:
        return "itrd"

    def saved(self) -> dict[str, Any]:
        """Returns the options that a checkpoint saves, to be compared when a training is resumed.

        Options that were added after the first checkpoints are left out at their default, so that old checkpoints still
        match.
        """
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        given = dataclasses.asdict(self)
        return {key: value for key, value in given.items() if key in _FIRST_OF_ITRD or value != usual[key]}


@dataclass(frozen=True)
class HiddenConfig:
    """Losses between hidden states of student and teacher, which must have the same width.

    Args:
        mse: weight of the squared distance, summed over the embeddings and all student layers (TextBrewer)
        mmd: weight of the squared distance between the tokens' Gram matrices, summed over the same (TextBrewer)
        cosine: weight of 1 minus the cosine similarity, in the last layer (DistilBERT)
    """

    mse: float = 1.0
    mmd: float = 0.0
    cosine: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mse", "mmd", "cosine"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"hidden.{name}", ">= 0 and finite", value)
        require(self.mse + self.mmd + self.cosine > 0, "hidden.mse", "> 0 without mmd and cosine", self.mse)


@dataclass(frozen=True)
class StudentConfig:
    """A student, which is a BERT with fewer layers than the teacher, and the losses from which it learns.

    Args:
        layers: number of layers, which must divide the teacher's
        ce: weight of the cross-entropy with the answers' positions
        kd: knowledge distillation from the teacher's logits; null for none
        itrd: ITRD, a correlation and a mutual-information loss, with the teacher's layers; null for none
        hidden: distances to the teacher's hidden states; null for none
    """

    layers: int = 6
    ce: float = 1.0
    kd: LogitKDConfig | None = None
    itrd: LayerITRDConfig | None = None
    hidden: HiddenConfig | None = None

    def __post_init__(self) -> None:
        require(self.layers >= 1, "layers", ">= 1", self.layers)
        require(self.ce >= 0, "ce", ">= 0", self.ce)
        require(self.ce > 0 or self.needs_teacher, "ce", "> 0 for a student without kd, itrd and hidden", self.ce)

    @property
    def needs_teacher(self) -> bool:
        """Whether any loss of the student compares it with the teacher."""
        return any(part is not None for part in (self.kd, self.itrd, self.hidden))

    def saved(self) -> dict[str, Any]:
        """Returns the fields that a checkpoint saves, to be compared when the student's training is resumed."""
        own = dataclasses.asdict(self)
        return own if self.itrd is None else {**own, "itrd": self.itrd.saved()}


def _students() -> dict[str, StudentConfig]:
    return {"t6": StudentConfig(), "t6-itrd": StudentConfig(kd=LogitKDConfig(), itrd=LayerITRDConfig())}


def _teacher_train() -> SquadTrainConfig:
    return SquadTrainConfig(epochs=3, lr=5e-5)


@dataclass(frozen=True)
class SquadConfig:
    """All settings of a run: the data, a BERT teacher, and its students with fewer layers.

    Args:
        data: the questions
        pretrained: folder of a saved BERT with its tokenizer, which is fine-tuned to become the teacher
        random_init: read only config.json and the tokenizer of that folder, and draw the weights at random
        teacher: folder of a teacher that is already fine-tuned, saved by transformers or by another run; it replaces
            pretrained
        teacher_train: how the teacher is trained
        train: how each student is trained
        students: name -> the student's layers and losses
        fabric: device and number of threads; there must be one process
        log: progress output and checkpoints
    """

    data: SquadDataConfig = field(default_factory=SquadDataConfig)
    pretrained: str | None = None
    random_init: bool = False
    teacher: str | None = None
    teacher_train: SquadTrainConfig = field(default_factory=_teacher_train)
    train: SquadTrainConfig = field(default_factory=SquadTrainConfig)
    students: dict[str, StudentConfig] = field(default_factory=_students)
    fabric: FabricConfig = field(default_factory=FabricConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        for name in self.students:
            plain = name.replace("-", "").replace("_", "")
            if not plain.isalnum() or name in ("teacher", "tiny"):
                raise UserError(
                    f"students: {name!r} cannot be a student's name, because a folder next to 'teacher' and 'tiny' "
                    "gets that name: use other letters, digits, '-' and '_'"
                )
        processes = self.fabric.devices * self.fabric.num_nodes
        require(processes == 1, "fabric.devices", "1, since question answering runs in one process", processes)

    def identity(self, name: str) -> dict[str, Any]:
        """Returns the settings of the teacher or of a student that must be the same when its training is resumed."""
        own: dict[str, Any] = {"name": name, "data": dataclasses.asdict(self.data)}
        if name == "teacher":
            return {**own, "train": dataclasses.asdict(self.teacher_train), "random_init": self.random_init}
        return {**own, "train": dataclasses.asdict(self.train), "student": self.students[name].saved()}

"""What a student can learn from, as frozen dataclasses: one for each distiller, with its weight and their schedule."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from bnn_itrd.errors import UserError, require

__all__ = ["METHODS", "DistillConfig", "Weighted"]


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """What every distiller has.

    Args:
        weight: of the term
        warmup_epochs: epochs in which the weight rises from 0, linearly
        final: factor on the weight at the end; from the warm-up on it changes linearly
    """

    weight: float = 1.0
    warmup_epochs: float = 0.0
    final: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind = str(field.type)
            if kind.startswith("Literal"):
                values = get_args(get_type_hints(type(self))[field.name])
                self._require(value in values, field.name, f"one of {', '.join(values)}")
            elif kind == "int":
                least = 1 if field.name in _POSITIVE else 0
                if field.name != "stage":
                    self._require(isinstance(value, int) and value >= least, field.name, f"an integer >= {least}")
            elif kind == "float":
                self._require(math.isfinite(value), field.name, "finite")
                if field.name in _POSITIVE:
                    self._require(value > 0, field.name, "> 0")
                else:
                    self._require(value >= 0, field.name, ">= 0")

    def _require(self, condition: bool, name: str, rule: str) -> None:
        method = type(self).__name__.removesuffix("Config").lower()
        require(condition, f"{method}.{name}", rule, getattr(self, name))

    def _require_no_schedule(self) -> None:
        """Of a term that takes part in its preparation alone."""
        for name, value in (("warmup_epochs", 0.0), ("final", 1.0)):
            self._require(getattr(self, name) == value, name, f"{value}: the term ends before the training begins")

    def factor(self, epoch: float, epochs: int) -> float:
        """What the weight is multiplied with at an epoch in [0, epochs)."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        left = epochs - self.warmup_epochs
        return 1.0 + (self.final - 1.0) * ((epoch - self.warmup_epochs) / left if left > 0 else 1.0)

    @property
    def scheduled(self) -> bool:
        return self.warmup_epochs > 0 or self.final != 1.0

    @property
    def only_prepares(self) -> bool:
        """Whether it adds no term to the training itself."""
        return False


# Fields that may not be 0.
_POSITIVE = frozenset({"tau", "embed_dim", "negatives", "temperature", "margin", "epsilon", "iterations"})


# ---- logits


@dataclass(frozen=True, kw_only=True)
class KDConfig(Weighted):
    """Softened logits (Hinton et al. 2015).

    Args:
        weight: of the term; 0.9 beside a cross-entropy of 0.1 is the usual pair
        warmup_epochs: epochs in which the weight rises from 0, linearly
        final: factor on the weight at the end; from the warm-up on it changes linearly
        tau: temperature
    """

    weight: float = 0.9
    tau: float = 4.0


@dataclass(frozen=True, kw_only=True)
class DKDConfig(Weighted):
    """Decoupled target and non-target parts of softened logits (Zhao et al. 2022).

    Args:
        weight: of the term
        warmup_epochs: epochs in which the weight rises from 0; 20 of 240 in the paper
        final: factor on the weight at the end
        alpha: of the target part
        beta: of the non-target part; 8, and 2 or 6 for several pairs
        tau: temperature
    """

    warmup_epochs: float = 20.0
    alpha: float = 1.0
    beta: float = 8.0
    tau: float = 4.0


@dataclass(frozen=True, kw_only=True)
class DISTConfig(Weighted):
    """Pearson correlation between and within classes (Huang et al. 2022).

    Args:
        weight: of the term
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
        beta: of the part between classes
        gamma: of the part within classes
        tau: temperature
    """

    beta: float = 1.0
    gamma: float = 1.0
    tau: float = 1.0


# ---- the representation before the classifier


@dataclass(frozen=True, kw_only=True)
class ITRDConfig(Weighted):
    """Information Theoretic Representation Distillation (Miles et al. 2022), eq. 10.

    Args:
        weight: of both terms
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
        alpha: exponent of the correlation loss: 1.01 for one architecture, 1.5 across architectures
        beta_corr: weight of the correlation loss
        beta_mi: weight of the mutual-information loss
        gather: several processes: statistics over the global batch (otherwise over each process's own)
    """

    alpha: float = 1.01
    beta_corr: float = 2.0
    beta_mi: float = 1.0
    gather: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.alpha > 0, "alpha", "> 0")


@dataclass(frozen=True, kw_only=True)
class CCConfig(Weighted):
    """Correlation congruence (Peng et al. 2019).

    Args:
        weight: of the term; 0.02 belongs to the consecutive form
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
        embed_dim: of the embedding both representations are brought to
        form: consecutive (differences of neighbours in the batch) or kernel (the paper's)
    """

    weight: float = 0.02
    embed_dim: int = 128
    form: Literal["consecutive", "kernel"] = "consecutive"


@dataclass(frozen=True, kw_only=True)
class RKDConfig(Weighted):
    """Distances and angles between samples (Park et al. 2019).

    Args:
        weight: of both parts
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
        distance: weight of the distances
        angle: weight of the angles, whose memory grows with the cube of the batch
    """

    distance: float = 25.0
    angle: float = 50.0


@dataclass(frozen=True, kw_only=True)
class PKTConfig(Weighted):
    """Conditional probabilities of a cosine kernel (Passalis and Tefas 2018).

    Args:
        weight: of the term
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
    """

    weight: float = 3e4


@dataclass(frozen=True, kw_only=True)
class SRDConfig(Weighted):
    """Linear projection, BatchNorm on both, logarithm of a power (Miles and Mikolajczyk).

    Args:
        weight: of the term
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
        exponent: of the difference
    """

    weight: float = 2.0
    exponent: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.exponent >= 1, "exponent", ">= 1")


@dataclass(frozen=True, kw_only=True)
class CRDConfig(Weighted):
    """Contrastive, with a memory bank (Tian et al. 2020).

    Args:
        weight: of the term
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
        embed_dim: of the embeddings in the bank
        negatives: how many each sample is held against
        temperature: of the similarities
        momentum: of the bank, in [0, 1)
    """

    weight: float = 0.8
    embed_dim: int = 128
    negatives: int = 16384
    temperature: float = 0.07
    momentum: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.momentum < 1, "momentum", "in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class WCoRDConfig(Weighted):
    """Wasserstein contrastive: a global dual and a local primal part (Chen et al. 2021).

    Args:
        weight: of both parts
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
        beta_global: weight of the contrastive part
        beta_local: weight of the transport within a batch
        embed_dim: of the embeddings in the bank
        negatives: how many each sample is held against
        temperature: of the similarities
        momentum: of the bank, in [0, 1)
        epsilon: entropic regularisation of Sinkhorn's iterations
        iterations: of Sinkhorn's algorithm
    """

    beta_global: float = 0.8
    beta_local: float = 0.05
    embed_dim: int = 128
    negatives: int = 16384
    temperature: float = 0.07
    momentum: float = 0.5
    epsilon: float = 0.1
    iterations: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.momentum < 1, "momentum", "in [0, 1)")
        self._require(self.beta_global + self.beta_local > 0, "beta_global", "> 0 where beta_local is 0")


# ---- maps of the stages


@dataclass(frozen=True, kw_only=True)
class VIDConfig(Weighted):
    """Variational lower bound of the mutual information (Ahn et al. 2019).

    Args:
        weight: of the sum over the stages
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
        form: maps (MI-I, every stage) or logits (MI-L: the student's representation and the teacher's logits)
        reduction: mean over the elements, or sum as in the paper
        batch_norm: maps: two convolutions with BatchNorm as in the paper, not three without
    """

    form: Literal["maps", "logits"] = "maps"
    reduction: Literal["mean", "sum"] = "mean"
    batch_norm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            self.form == "maps" or not self.batch_norm, "batch_norm", "false with form logits, a linear layer"
        )


@dataclass(frozen=True, kw_only=True)
class FitNetConfig(Weighted):
    """A hint through a 1x1 convolution (Romero et al. 2015).

    Args:
        weight: of the term
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
        stage: which map, from 0, or from the end with -1; the middle one by default
    """

    weight: float = 100.0
    stage: int | None = None


@dataclass(frozen=True, kw_only=True)
class ATConfig(Weighted):
    """Spatial attention maps, summed over the stages (Zagoruyko and Komodakis 2017).

    Args:
        weight: of the sum
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
        p: power of the activations
    """

    weight: float = 1000.0
    p: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.p >= 1, "p", ">= 1")


@dataclass(frozen=True, kw_only=True)
class SPConfig(Weighted):
    """Similarities between the samples of a batch (Tung and Mori 2019).

    Args:
        weight: of the term
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
        stage: which map, from 0, or from the end with -1
    """

    weight: float = 3000.0
    stage: int = -1


@dataclass(frozen=True, kw_only=True)
class NSTConfig(Weighted):
    """Maximum mean discrepancy of channels, summed over the stages (Huang and Wang 2017).

    Args:
        weight: of the sum
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
    """

    weight: float = 50.0


@dataclass(frozen=True, kw_only=True)
class ICKDConfig(Weighted):
    """Correlation between channels (Liu et al. 2021).

    Args:
        weight: of the term
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
        stage: which map, from 0, or from the end with -1
    """

    weight: float = 2.5
    stage: int = -1


@dataclass(frozen=True, kw_only=True)
class FSPConfig(Weighted):
    """Gram matrices between neighbouring stages (Yim et al. 2017).

    Args:
        weight: of the term
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
        preparation_epochs: trains the student on this alone first, as the paper does; it then takes no further
            part, and has no schedule
    """

    weight: float = 50.0
    preparation_epochs: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.only_prepares:
            self._require_no_schedule()

    @property
    def only_prepares(self) -> bool:
        return self.preparation_epochs > 0


@dataclass(frozen=True, kw_only=True)
class ABConfig(Weighted):
    """Boundaries of activation, in a phase of its own before the training (Heo et al. 2019).

    Args:
        weight: of the term within its phase
        warmup_epochs: 0: the term ends before the training begins
        final: 1, for the same reason
        margin: by which an activation should stand off its boundary
        preparation_epochs: length of the phase
    """

    weight: float = 3e-3
    margin: float = 1.0
    preparation_epochs: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.preparation_epochs >= 1, "preparation_epochs", ">= 1: it learns nowhere else")
        self._require_no_schedule()

    @property
    def only_prepares(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class FTConfig(Weighted):
    """Factors of a paraphraser that is trained first (Kim et al. 2018).

    Args:
        weight: of the term
        warmup_epochs: epochs in which the weight rises from 0
        final: factor on the weight at the end
        stage: which map, from 0, or from the end with -1
        rate: channels of the factors over those of the teacher's map
        preparation_epochs: in which the paraphraser is trained
    """

    weight: float = 200.0
    stage: int = -1
    rate: float = 0.5
    preparation_epochs: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(0 < self.rate <= 1, "rate", "in (0, 1]")
        self._require(self.preparation_epochs >= 1, "preparation_epochs", ">= 1: the paraphraser is trained there")


@dataclass(frozen=True, kw_only=True)
class ReviewKDConfig(Weighted):
    """Fusion of later into earlier stages (Chen et al. 2021).

    Args:
        weight: of the term; 0.6 to 8 by the pair of networks
        warmup_epochs: epochs in which the weight rises from 0; 20 of 240 in the paper
        final: factor on the weight at the end
    """

    warmup_epochs: float = 20.0


@dataclass(frozen=True)
class DistillConfig:
    """What a student learns from: labels, and any of the distillers; none of them makes a plain student.

    Args:
        ce: weight of the cross-entropy with the labels
        kd: softened logits of the teacher
        dkd: target and non-target parts of them
        dist: correlations between and within classes
        itrd: correlation and mutual information with the teacher's representation
        cc: correlation congruence
        rkd: distances and angles between samples
        pkt: probabilities of a cosine kernel
        srd: projected, normalised representation
        crd: contrast with a memory bank
        wcord: Wasserstein contrast with a memory bank
        vid: variational mutual information
        fitnet: a hint
        at: attention maps
        sp: similarities between samples
        nst: statistics of channels
        ickd: correlation between channels
        fsp: flow between stages
        ab: boundaries of activation
        ft: factors
        reviewkd: fused stages
    """

    ce: float = 1.0
    kd: KDConfig | None = None
    dkd: DKDConfig | None = None
    dist: DISTConfig | None = None
    itrd: ITRDConfig | None = None
    cc: CCConfig | None = None
    rkd: RKDConfig | None = None
    pkt: PKTConfig | None = None
    srd: SRDConfig | None = None
    crd: CRDConfig | None = None
    wcord: WCoRDConfig | None = None
    vid: VIDConfig | None = None
    fitnet: FitNetConfig | None = None
    at: ATConfig | None = None
    sp: SPConfig | None = None
    nst: NSTConfig | None = None
    ickd: ICKDConfig | None = None
    fsp: FSPConfig | None = None
    ab: ABConfig | None = None
    ft: FTConfig | None = None
    reviewkd: ReviewKDConfig | None = None

    def __post_init__(self) -> None:
        require(self.ce >= 0 and math.isfinite(self.ce), "ce", ">= 0 and finite", self.ce)

    @property
    def methods(self) -> dict[str, Any]:
        """The distillers that take part, name -> configuration, in the order of the fields."""
        return {name: getattr(self, name) for name in METHODS if getattr(self, name) is not None}

    @property
    def needs_teacher(self) -> bool:
        return bool(self.methods)

    def check_learns(self) -> None:
        """Raises UserError where no term of the training has a weight."""
        if self.ce == 0 and not any(m.weight > 0 and not m.only_prepares for m in self.methods.values()):
            raise UserError("ce is 0 and no distiller has a weight in the training itself: nothing would be learned")

    @property
    def compares_logits(self) -> bool:
        """Whether the teacher must know the same classes."""
        return bool(self.methods.keys() & {"kd", "dkd", "dist"})


# Name on the command line and in recipes -> its configuration.
METHODS: dict[str, type[Weighted]] = {
    name: get_args(kind)[0] for name, kind in get_type_hints(DistillConfig).items() if name != "ce"
}

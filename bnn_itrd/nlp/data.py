"""Reads the questions of a run, cuts them into windows, and hashes the files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnn_itrd.errors import UserError
from bnn_itrd.files import file_hash
from bnn_itrd.nlp.config import SquadDataConfig
from bnn_itrd.nlp.features import Window, make_windows
from bnn_itrd.nlp.squad import FILES, Example, read_squad

__all__ = ["SquadData", "load_squad"]


@dataclass(frozen=True)
class SquadData:
    """Training and dev questions with their windows. sha256: split -> hash of its file."""

    config: SquadDataConfig
    tokenizer: Any
    train: list[Example]
    dev: list[Example]
    train_windows: list[Window]
    dev_windows: list[Window]
    sha256: dict[str, str]

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    def describe(self) -> dict[str, Any]:
        """Returns the description of the data for comparison.json."""
        return {
            "name": self.config.name,
            "train": len(self.train),
            "test": len(self.dev),
            "train_windows": len(self.train_windows),
            "test_windows": len(self.dev_windows),
            "sha256": self.sha256,
        }


def load_squad(config: SquadDataConfig, root: Path, tokenizer: Any) -> SquadData:
    """Reads both splits of `root`. Raises UserError as `read_squad` and `make_windows` do, and on another tokenizer."""
    for name in ("cls_token_id", "sep_token_id", "pad_token_id"):
        if getattr(tokenizer, name) is None:
            raise UserError(f"the tokenizer has no {name}: a BERT tokenizer is needed")
    files = {split: root / name for split, name in FILES.items()}
    train, dev = (read_squad(files[split], training=split == "train") for split in ("train", "dev"))
    return SquadData(
        config,
        tokenizer,
        train,
        dev,
        make_windows(train, tokenizer, config),
        make_windows(dev, tokenizer, config),
        {split: file_hash(path) for split, path in files.items()},
    )

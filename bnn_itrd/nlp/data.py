"""Reads the questions of a run, cuts them into windows of tokens, and hashes the files."""

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
    """The training and dev questions of a run, with the windows of tokens into which they are cut.

    `sha256` has the hash of each file, under the keys train and dev.
    """

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
        """Returns what comparison.json says about the data: numbers of questions and windows, and the files' hashes."""
        return {
            "name": self.config.name,
            "train": len(self.train),
            "test": len(self.dev),
            "train_windows": len(self.train_windows),
            "test_windows": len(self.dev_windows),
            "sha256": self.sha256,
        }


def load_squad(config: SquadDataConfig, root: Path, tokenizer: Any) -> SquadData:
    """Reads train-v1.1.json and dev-v1.1.json of the folder `root`, and cuts their questions into windows of tokens.

    Raises UserError if a file is missing or not SQuAD 1.1, or if the tokenizer is not a fast BERT tokenizer.
    """
    for name in ("cls_token_id", "sep_token_id", "pad_token_id"):
        if getattr(tokenizer, name) is None:
            raise UserError(f"the tokenizer has no {name}: use the tokenizer of a BERT")
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

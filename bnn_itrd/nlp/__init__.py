"""Question answering on SQuAD 1.1: a BERT teacher, students of fewer layers, ITRD on every layer, KD on the logits.

The metric and the reader of the data need no other library; all other parts need Hugging Face transformers (extra
`nlp`).
"""

from .metrics import exact_match, f1, normalise_answer, score_answers
from .squad import Example, read_squad

__all__ = ["Example", "exact_match", "f1", "normalise_answer", "read_squad", "score_answers"]

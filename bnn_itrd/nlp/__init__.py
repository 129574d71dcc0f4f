"""Question answering on SQuAD 1.1: distils a BERT teacher into students with fewer layers.

The students' layers learn from the teacher's by ITRD, a correlation and a mutual-information loss, and their logits by
knowledge distillation. What this module exports, the metrics and the reader of the data, needs no further library. The
rest needs Hugging Face transformers (the extra `nlp`).
"""

from .metrics import exact_match, f1, normalise_answer, score_answers
from .squad import Example, read_squad

__all__ = ["Example", "exact_match", "f1", "normalise_answer", "read_squad", "score_answers"]

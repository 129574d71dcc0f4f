"""Methods that compare the two logits, a file for each."""

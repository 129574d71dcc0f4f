"""Methods that compare logits, one file for each."""

"""Code for `bnn-itrd table`, which shows a paper's table with the user's own results in its cells."""

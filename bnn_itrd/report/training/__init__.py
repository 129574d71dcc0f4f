"""The section "Training": the curves, and what distillers watched beside them."""

"""The report's section "Training": curves of accuracy and loss, and of statistics that distillation losses recorded."""

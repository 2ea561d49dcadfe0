"""Dataset versions, recipes and the guarded driver that runs them through Data-Juicer."""

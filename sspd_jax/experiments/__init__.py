"""Whole experiments: one training with its evaluation, and studies over seeds, folds and datasets."""

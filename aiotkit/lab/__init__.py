"""The desk: sources, context join, outcomes, labels, features, evaluation and plots."""

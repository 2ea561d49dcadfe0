"""Answers of a model, their scores, what the scores mean, and the report of all that."""

"""Measure a trained model: scores, samples and interpretability."""

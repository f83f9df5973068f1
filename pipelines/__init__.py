"""The numbered notebooks of retraining and release, with their default parameters: data, no code."""

"""Embeddings of time, class and features; see :mod:`dynunet.nn.embeddings`."""

from .nn.embeddings import ClassEmbedding, FeatureEmbedding, TimeEmbedding, sinusoidal
from .nn.option import TIME_EMBEDDINGS

__all__ = ["TIME_EMBEDDINGS", "ClassEmbedding", "FeatureEmbedding", "TimeEmbedding", "sinusoidal"]

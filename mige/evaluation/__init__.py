"""What an embedding is worth: probes with labels, and a rank without."""

from mige.evaluation.knn import KNN, knn_probe
from mige.evaluation.label_free import rank_me
from mige.evaluation.linear_probe import LINEAR_PROBE, ProbeResult, linear_probe

__all__ = ["KNN", "LINEAR_PROBE", "ProbeResult", "knn_probe", "linear_probe", "rank_me"]

"""How metrics are called where people read."""

_NAMES = {
    "recall": "R",
    "recall_subset": "subset R",
    "map": "mAP",
    "mrr": "MRR",
    "cirr_average": "average",
}


def title_of(metric: str, k: int) -> str:
    """``R@10``, ``mAP@5``, ``MRR``: ``k`` is 0 where there is none."""
    return f"{_NAMES.get(metric, metric)}@{k}" if k else _NAMES.get(metric, metric)

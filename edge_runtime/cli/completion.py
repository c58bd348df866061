"""What the shell may complete: names of models and drafters. Reads cards and the store's list, loads nothing else."""

__all__ = ["drafter_names", "model_names"]

WORDS = ("auto", "none", "lookup")
BEFORE = "lookup+"  # a model's name follows


def model_names(incomplete: str) -> list[str]:
    """Models that are known or here, and begin so."""
    from outrider import catalog

    return sorted(
        name for name in {*catalog.cards(), *catalog.recipes(), *catalog.stored()} if name.startswith(incomplete)
    )


def drafter_names(incomplete: str) -> list[str]:
    """What may stand for a drafter, and begins so."""
    if incomplete.startswith(BEFORE):
        return [BEFORE + name for name in model_names(incomplete.removeprefix(BEFORE))]
    return [word for word in WORDS if word.startswith(incomplete)] + model_names(incomplete)

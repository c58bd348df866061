"""What the shell may complete: names of models. Reads cards and the store's list, loads nothing else."""

__all__ = ["model_names"]


def model_names(incomplete: str) -> list[str]:
    """Models that are known or here, and begin so."""
    from outrider import catalog

    return sorted(
        name for name in {*catalog.cards(), *catalog.recipes(), *catalog.stored()} if name.startswith(incomplete)
    )

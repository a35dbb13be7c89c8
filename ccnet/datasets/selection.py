"""Selection of samples by parts of their names."""

from collections.abc import Sequence


def select(names: Sequence[str], parts: str) -> list[int]:
    """Returns the indices of the samples whose names contain one of some parts.

    Args:
        names: of all samples.
        parts: separated by commas, as in "0006R0,0001TP".

    Raises:
        ValueError: if a part is empty, or in no name.
    """
    wanted = [part.strip() for part in parts.split(",")]
    for part in wanted:
        if not part or not any(part in name for name in names):
            raise ValueError(
                f"no name of the {len(names)} samples contains {part!r}; they are such as "
                f"{', '.join(sorted(names)[:: max(1, len(names) // 3)])}"
            )
    return [index for index, name in enumerate(names) if any(part in name for part in wanted)]

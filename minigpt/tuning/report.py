"""What a tuning method costs: numbers that learn, bytes on disk."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """parameters learn, the base's other parameters do not, and a saved result takes `stored` bytes of tensors.

    Twenty virtual tokens for GPT-2 small:

    >>> print(Report(parameters=15_360, stored=61_440, base=124_439_808))
    trains 15,360 of 124,455,168 (0.0123 %), stores 61,440 bytes
    """

    parameters: int
    stored: int
    base: int  # parameters that stay as they are

    def record(self) -> dict[str, int]:
        """As numbers for a log."""
        return {"trains": self.parameters, "stored": self.stored, "base": self.base}

    def __str__(self) -> str:
        total = self.parameters + self.base
        share = f"{self.parameters:,} of {total:,} ({100 * self.parameters / max(1, total):.4f} %)"
        return f"trains {share}, stores {self.stored:,} bytes"

"""How far an epoch is: exact, whatever the number of workers that share it, now and later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Progress:
    """Which batches of an epoch were delivered.

    Workers deliver out of order, so it is all before one number, and a few behind it.

    Attributes
    ----------
    done
        Batches before this one are delivered.
    ahead
        Others that are.
    """

    done: int = 0
    ahead: set[int] = field(default_factory=set)

    def note(self, batch: int) -> None:
        """Note that a batch was delivered."""
        self.ahead.add(batch)
        while self.done in self.ahead:
            self.ahead.remove(self.done)
            self.done += 1

    def left(self, batches: int, together: int, part: int = 0, parts: int = 1) -> Iterator[list[int]]:
        """Yield the batches that are not delivered, in groups that are read at once.

        Parameters
        ----------
        batches
            Of the whole epoch.
        together
            Batches of a group.
        part, parts
            Every ``parts``-th group, beginning with number ``part`` of those that are left.
        """
        number = 0
        for first in range(self.done // together * together, batches, together):
            every = range(max(first, self.done), min(first + together, batches))
            group = [batch for batch in every if batch not in self.ahead]
            if group:
                if number % parts == part:
                    yield group
                number += 1

    def to_state(self) -> dict[str, Any]:
        """Return it as plain numbers, for a checkpoint."""
        return {"done": self.done, "ahead": sorted(self.ahead)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Progress:
        """Return the progress that a checkpoint tells."""
        return cls(int(state["done"]), {int(batch) for batch in state["ahead"]})

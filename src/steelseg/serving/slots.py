"""How many strips are let in: a number, and an answer at once for those beyond it."""

from collections.abc import Iterator
from contextlib import contextmanager

from steelseg.serving.messages import Refusal


class Slots:
    """Places for strips; whoever reads a body holds none, so a slow sender keeps nobody out."""

    def __init__(self, most: int) -> None:
        """Take the number of places."""
        self.most = most
        self.taken = 0

    def refuse_full(self) -> None:
        """Raise Refusal if every place is taken."""
        if self.taken >= self.most:
            raise Refusal(
                429,
                f"{self.most} strips are predicted or wait for it already. Send this one again "
                "in a second.",
                headers=(("Retry-After", "1"),),
            )

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place while the block runs; raises as `refuse_full`."""
        self.refuse_full()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

"""Throughput and lag of `steelseg watch` on stderr: a bar on a terminal, else occasional lines."""

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

# Seconds between two plain lines.
_QUIET_SECONDS = 15.0


class Meter:
    """Counts strips, and shows strips per second and the lag of the last one."""

    def __init__(self) -> None:
        """Start to count."""
        self.strips = 0
        self.refused = 0
        self._lag_s = 0.0
        self._shown = -1
        self._shown_at = self._begin = time.monotonic()
        self._before = 0
        is_terminal = sys.stderr.isatty()
        self._bar = tqdm(desc="watch", unit=" strips", dynamic_ncols=True) if is_terminal else None

    def count(self, *, lag_s: float, refused: bool) -> None:
        """Count a strip."""
        self.strips += not refused
        self.refused += refused
        self._lag_s = lag_s

    def show(self, waiting: int, behind: Mapping[str, int]) -> None:
        """Show the current state; without a terminal, at most every few seconds.

        Args:
            waiting: Number of files and strips that still need work.
            behind: Number of bytes that each receiver has not confirmed.
        """
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(self._state(waiting, behind), refresh=False)
            self._bar.update(self.strips - self._bar.n)
        elif now - self._shown_at >= _QUIET_SECONDS and self._shown != self.strips + self.refused:
            rate = (self.strips - self._before) / (now - self._shown_at)
            self._say(f"{rate:.1f}/s, {self._state(waiting, behind)}")
            self._before, self._shown, self._shown_at = (
                self.strips,
                self.strips + self.refused,
                now,
            )

    def close(self, behind: Mapping[str, int]) -> None:
        """Show the last state."""
        if self._bar is not None:
            self._bar.close()
        rate = self.strips / max(time.monotonic() - self._begin, 1e-9)
        self._say(f"{rate:.1f}/s, {self._state(0, behind)}")

    def _say(self, text: str) -> None:
        print(f"watch: {self.strips} strips, {text}", file=sys.stderr, flush=True)

    def _state(self, waiting: int, behind: Mapping[str, int]) -> str:
        parts = [f"lag {self._lag_s:.1f} s"]
        parts += [f"{waiting} waiting"] if waiting else []
        parts += [f"{self.refused} refused"] if self.refused else []
        parts += [f"{name} {left:,} bytes behind" for name, left in behind.items() if left]
        return ", ".join(parts)

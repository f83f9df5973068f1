"""A watch over what may never come back: a model that hangs ends the process; a supervisor starts it again.

Nothing inside a process can stop native code that loops. So the actuator process's deadman brings back rest,
this watch writes where every thread was and ends the process, its supervisor (``Restart=always``) starts it
anew, and starts without a proper end are what a bundle on probation is taken back for.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)
#: opening a graph and running its golden cases may take so long
TRYING_S = 120.0
EXIT_CODE = 3
_STDERR = 2
_LEAST_TICK_S, _MOST_TICK_S = 0.05, 0.5


class Watch:
    """Counts the seconds between ``begin`` and ``end``; beyond ``limit_s`` the process is over.

    It does nothing until it is started. The look itself is a thread; should native code keep that thread
    from running at all, a timer of ``faulthandler`` (which needs no interpreter) ends the process later.
    """

    def __init__(self, limit_s: float = TRYING_S) -> None:
        self.limit_s = limit_s
        self._since_s: float | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Something that may hang starts."""
        self._since_s = time.monotonic()

    def end(self) -> None:
        """It came back."""
        self._since_s = None

    def start(self) -> None:
        """Look from now on."""
        self._arm()
        self._thread = threading.Thread(target=self._keep_looking, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _keep_looking(self) -> None:
        while not self._over.wait(min(_MOST_TICK_S, max(_LEAST_TICK_S, self.limit_s / 10))):
            since_s = self._since_s
            if since_s is not None and time.monotonic() - since_s > self.limit_s:
                self._give_up()
            self._arm()

    def _arm(self) -> None:
        """Set the timer anew; it only goes off when nobody comes by to do so."""
        faulthandler.dump_traceback_later(2 * self.limit_s + 1, exit=True, file=_STDERR)

    def _give_up(self) -> None:
        log.critical("the bundle has not come back for %g s: this process ends", self.limit_s)
        faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        os._exit(EXIT_CODE)


@contextmanager
def watched(limit_s: float = TRYING_S) -> Iterator[None]:
    """End the process when what is done here does not come back in time."""
    watch = Watch(limit_s)
    watch.begin()
    watch.start()
    try:
        yield
    finally:
        watch.end()
        watch.stop()

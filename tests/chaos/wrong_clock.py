"""Runs a module of Python with a wrong clock: `wrong_clock.py SHIFT_S|frozen MODULE ARGUMENTS`.

What a program reads of the time is wrong; what waits goes by the monotonic clock, which nobody can
set. (libfaketime changes what the Kafka client's C code waits for as well, and that never ends.)
"""

import datetime as dt
import runpy
import sys
import time

_, CLOCK, MODULE, *ARGUMENTS = sys.argv
_true_s, _true_strftime = time.time, time.strftime
_STARTED_S = time.time()


def now_s() -> float:
    return _STARTED_S if CLOCK == "frozen" else _true_s() + float(CLOCK)


class Clock(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> "Clock":
        return cls.fromtimestamp(now_s(), tz)


def strftime(form: str, at: time.struct_time | None = None) -> str:
    return _true_strftime(form, time.localtime(now_s()) if at is None else at)


time.time, time.strftime = now_s, strftime  # type: ignore[assignment]
time.time_ns = lambda: int(now_s() * 1e9)
dt.datetime = Clock  # type: ignore[misc]
sys.argv = [MODULE, *ARGUMENTS]
runpy.run_module(MODULE, run_name="__main__", alter_sys=True)

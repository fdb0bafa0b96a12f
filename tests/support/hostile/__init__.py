"""Hostile programs, as tables: name -> text.

None may earn anything, overrun its limits, or leave anything behind. `CALLS` earn if their `f(3)`
gives 42; `SCRIPTS` and `CPP` if they print `SECRET` (what the test expects, which they must not
get hold of); `CHECKS` if the check of `g` passes.
"""

from support.hostile import calls_of_endings, calls_of_limits, calls_of_reach
from support.hostile.checks import CHECK, CHECKS
from support.hostile.compiled import COMPILE_BOMBS, CPP
from support.hostile.scripts import SCRIPTS

__all__ = ["CALLS", "CHECK", "CHECKS", "COMPILE_BOMBS", "CPP", "SCRIPTS", "SECRET"]

SECRET = "hidden-4137-answer"
CALLS = {
    **calls_of_limits.OVERRUNNING,
    **calls_of_endings.ENDINGS,
    **calls_of_reach.NETWORK_AND_SYSTEM,
    **calls_of_endings.ODD_TEXTS,
    **calls_of_limits.BY_OTHER_WAYS,
    **calls_of_reach.FILES,
    **calls_of_reach.LOOKING_AROUND,
    **calls_of_reach.OTHER_CALLS,
    **calls_of_reach.SIGNALS_AND_MEMORY,
    **calls_of_endings.LYING_ANSWERS,
}

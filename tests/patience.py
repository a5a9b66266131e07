"""How long tests wait: never for so long that a busy machine fails them, only for as long as nothing but a hang takes."""

import time

HANGS_S = 1_200.0


def wait_for(condition, what="what was waited for came", pause_s=0.02):
    """Until the condition holds; returns what it gave."""
    until = time.monotonic() + HANGS_S
    while not (found := condition()):
        assert time.monotonic() < until, f"waited {HANGS_S:.0f} s in vain until {what}"
        time.sleep(pause_s)
    return found

"""``report.html``."""

from strop.engine.outcome import Circumstances, Outcome


def page(outcome: Outcome, circumstances: Circumstances) -> str:
    return "<p>soon</p>"


def notebook(outcome: Outcome, circumstances: Circumstances) -> str:
    return page(outcome, circumstances)

"""The tuning loop: ``tune``, ``Study``, ``load_study``."""

from luthier.study.start import load_study, tune
from luthier.study.view import Study

__all__ = ["Study", "load_study", "tune"]

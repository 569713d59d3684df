"""The tuning loop: ``tune``, ``Study``, ``load_study``."""

from luthier.study.start import copy_study, import_study, load_study, tune
from luthier.study.view import Study

__all__ = ["Study", "copy_study", "import_study", "load_study", "tune"]

"""Reports: plain values in, one self-contained page out. Knows nothing of studies, stores or models."""

from luthier.report.run_page import run_page
from luthier.report.study_page import study_page

__all__ = ["run_page", "study_page"]
